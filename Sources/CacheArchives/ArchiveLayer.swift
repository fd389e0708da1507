public import ByteStorage
public import CachePacking
public import KVCacheModel

/// What an archive has of one layer beside its chunks.
public struct ArchiveLayer: Sendable {
    public let geometry: LayerGeometry
    /// All tokens, or the last ones.
    public let held: HeldTokens
    public let extent: LayerExtent
    /// The first rows that are kept exactly: `min(sinks, extent.blockEnd)` of them.
    public let sinkCount: Int
    public let sinks: KVCacheLayer?
    /// The rows of the residual window, eight bits a number: `EightBitRows.byteCount` bytes.
    public let window: SharedBytes
    public let state: [LayerState]

    public init(
        geometry: LayerGeometry,
        held: HeldTokens,
        extent: LayerExtent,
        sinkCount: Int,
        sinks: KVCacheLayer?,
        window: SharedBytes,
        state: [LayerState]
    ) {
        self.geometry = geometry
        self.held = held
        self.extent = extent
        self.sinkCount = sinkCount
        self.sinks = sinks
        self.window = window
        self.state = state
    }

    /// The places whose rows are in chunks.
    var codedPlaces: Range<Int> { Self.codedPlaces(extent: extent, sinkCount: sinkCount) }

    /// The places of a layer's rows that are in chunks: those before the window that are no sinks.
    public static func codedPlaces(extent: LayerExtent, sinkCount: Int) -> Range<Int> {
        let first = max(extent.first, min(sinkCount, extent.blockEnd))
        return first..<max(extent.blockEnd, first)
    }
}

/// The chunks of an archive: where their places are.
public enum ArchiveChunks: Sendable {
    /// Chunks that a cache with so many places before its window has.
    public static func count(blockEnd: Int) -> Int {
        (blockEnd + ArchivePlan.chunkPlaces - 1) / ArchivePlan.chunkPlaces
    }

    /// Chunks that have some of these places.
    static func count(of places: Range<Int>) -> Int {
        guard let last = places.last else { return 0 }
        return last / ArchivePlan.chunkPlaces - places.lowerBound / ArchivePlan.chunkPlaces + 1
    }

    /// The places of a chunk.
    public static func places(of chunk: Int, blockEnd: Int) -> Range<Int> {
        chunk * ArchivePlan.chunkPlaces..<min((chunk + 1) * ArchivePlan.chunkPlaces, blockEnd)
    }

    /// Bytes of the shifts of a chunk's places.
    public static func shiftByteCount(places: Int) -> Int { ShiftBytes.count(places: places) }
}
