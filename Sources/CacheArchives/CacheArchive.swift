public import ByteStorage
public import CachePacking
public import KVCacheModel

/// A cache in as few bytes as they go: coded by components, for files and networks; restored before it is used.
///
/// Source: Formats/archive.md.
public struct CacheArchive: Sendable {
    public let geometry: CacheGeometry
    public let shape: BlockShape
    public let tokenCount: Int
    public let plan: ArchivePlan
    /// How it was made, for people and for making more caches of the same kind; nil if nobody said.
    public let recipe: RecipeRecord?
    public let layers: [ArchiveLayer]
    /// Chunk by chunk the shifts of its places, and then each unit's record.
    public let chunks: [[SharedBytes]]
    /// Token ids, one per token, as far as they are known.
    public let tokens: [Int32]?
    /// Positions, one per token; nil where token t has position t.
    public let positions: [Int32]?
    public let metadata: [String: String]
    /// The query profile of each layer, if queries came with the cache and no profile of the model.
    public let profile: [[Float]]?

    public init(
        geometry: CacheGeometry,
        shape: BlockShape,
        tokenCount: Int,
        plan: ArchivePlan,
        recipe: RecipeRecord?,
        layers: [ArchiveLayer],
        chunks: [[SharedBytes]],
        tokens: [Int32]?,
        positions: [Int32]?,
        metadata: [String: String],
        profile: [[Float]]?
    ) {
        self.geometry = geometry
        self.shape = shape
        self.tokenCount = tokenCount
        self.plan = plan
        self.recipe = recipe
        self.layers = layers
        self.chunks = chunks
        self.tokens = tokens
        self.positions = positions
        self.metadata = metadata
        self.profile = profile
    }

    /// The place after the last that is in a chunk of some layer.
    public var blockEnd: Int { layers.reduce(0) { max($0, $1.extent.blockEnd) } }

    /// Bytes of all chunks.
    public var chunkByteCount: Int { chunks.joined().reduce(0) { $0 + $1.count } }

    /// Numbers that are in chunks, keys and values together.
    public var codedValueCount: Int {
        layers.reduce(0) { $0 + $1.codedPlaces.count * $1.geometry.valuesPerToken }
    }

    /// Numbers that the layers hold, keys and values together.
    public var valueCount: Int { layers.reduce(0) { $0 + $1.extent.rowCount * $1.geometry.valuesPerToken } }

    /// Bits of the chunks per number in them; nil if there are none.
    public var bitsPerValue: Double? {
        codedValueCount > 0 ? Double(chunkByteCount * 8) / Double(codedValueCount) : nil
    }

    /// Why the cache can be restored whole only, or nil if it may be cut to any prefix.
    public var wholeOnlyReason: String? {
        layers.enumerated().lazy.compactMap { index, layer in
            CompressedLayer.wholeOnlyReason(
                holdsAll: layer.held == .all || layer.geometry.isEmpty,
                hasState: !layer.state.isEmpty,
                index: index
            )
        }.first
    }
}
