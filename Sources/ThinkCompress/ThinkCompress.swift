// One import for Swift users: the modules below and the codecs that recipes know.

@_exported public import ByteStorage
@_exported public import CachePacking
@_exported public import CompressedAttention
@_exported public import ComputeRuntime
@_exported public import EngineFormats
@_exported public import KIVIQuantization
@_exported public import KVCacheCodecs
@_exported public import KVCacheModel
@_exported public import KVCacheQuality
@_exported public import KVSnapshots
@_exported public import ThinKPruning

extension CodecRegistry {
    /// Every codec of this package.
    public static let standard = CodecRegistry([KIVICodec.registration, ThinKCodec.registration])
}

extension Recipe {
    /// Reads a recipe of this package's codecs, such as `think(keys=0.4)+kivi(bits=2)`.
    ///
    /// - Throws: `RecipeError` that names the stage and the nearest right form.
    public init(_ text: String) throws(RecipeError) {
        try self.init(text, registry: .standard)
    }
}
