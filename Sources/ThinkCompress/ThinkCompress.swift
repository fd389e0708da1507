// One import for Swift users: the modules below and the codecs that recipes know.

@_exported public import ArchiveCoding
@_exported public import ByteStorage
@_exported public import CacheArchives
@_exported public import CachePacking
@_exported public import CalibratedCoding
@_exported public import CompressedAttention
@_exported public import CompressionBudgets
@_exported public import ComputeRuntime
@_exported public import EngineFormats
@_exported public import KIVIQuantization
@_exported public import KVCacheCodecs
@_exported public import KVCacheModel
@_exported public import KVCacheQuality
@_exported public import KVSnapshots
@_exported public import ThinKPruning
@_exported public import TokenSelection

extension CodecRegistry {
    /// Every codec of this package.
    public static let standard = CodecRegistry(
        [
            StreamingCodec.registration, SnapKVCodec.registration, H2OCodec.registration, KeyDiffCodec.registration,
            KIVICodec.registration, ThinKCodec.registration, CalibratedCodec.registration, BudgetCodec.registration,
            ArchiveCodec.registration,
        ],
        // Sizes and divergences are those of Evaluation.md: SmolLM2-135M after 2,048 tokens, with its profile.
        presets: [
            Preset(
                name: "small",
                recipe: "think(bits=2.25,values=2,widths=0|1|2|3|4)",
                help: "5.2 times smaller, KL 0.021"
            ),
            Preset(
                name: "balanced",
                recipe: "think(bits=2.5,values=2.25)",
                help: "4.9 times smaller, KL 0.013 (without a profile 0.020)"
            ),
            Preset(name: "faithful", recipe: "think(bits=4,values=4)", help: "3.3 times smaller, KL 0.0014"),
        ]
    )
}

extension Recipe {
    /// Reads a recipe of this package's codecs, such as `think(keys=0.4)+kivi(bits=2)`.
    ///
    /// - Throws: `RecipeError` that names the stage and the nearest right form.
    public init(_ text: String) throws(RecipeError) {
        try self.init(text, registry: .standard)
    }
}
