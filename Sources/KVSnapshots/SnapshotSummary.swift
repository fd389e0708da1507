public import CacheArchives
public import CachePacking
internal import KVCacheModel

/// What there is to say about a snapshot without looking at its pages.
public struct SnapshotSummary: Sendable {
    public let shape: BlockShape
    /// Tokens of the cache; a layer may hold fewer.
    public let tokenCount: Int
    public let metadata: [String: String]
    /// How the plans were made; nil if nobody said.
    public let recipe: RecipeRecord?
    /// Each layer's shape, and which rows it has where.
    public let layers: [LayerOutline]
    /// The plan of each layer; none of an archive.
    public let plans: [LayerPlan]
    /// How an archive's chunks are read; nil if it is none.
    public let archivePlan: ArchivePlan?
    /// What compression cost, if it was measured.
    public let quality: CompressionQuality?
    public let size: SnapshotSize

    /// The summary of a cache that was written.
    ///
    /// - Parameter size: what writing it gave.
    public init(_ cache: CompressedCache, quality: CompressionQuality?, size: SnapshotSize) {
        shape = cache.shape
        tokenCount = cache.tokenCount
        metadata = cache.metadata
        recipe = cache.recipe
        layers = cache.layers.map(LayerOutline.init)
        plans = cache.layers.map(\.plan)
        archivePlan = nil
        formatVersion = Int(SnapshotContents.version(of: cache))
        self.quality = quality.flatMap { $0.isFinite ? $0 : nil }
        self.size = size
    }

    /// The summary of an archive that was written.
    ///
    /// - Parameter size: what writing it gave.
    public init(_ archive: CacheArchive, quality: CompressionQuality?, size: SnapshotSize) {
        shape = archive.shape
        tokenCount = archive.tokenCount
        metadata = archive.metadata
        recipe = archive.recipe
        layers = archive.layers.map(LayerOutline.init)
        plans = []
        archivePlan = archive.plan
        formatVersion = Int(SnapshotFormat.versions.upperBound)
        self.quality = quality.flatMap { $0.isFinite ? $0 : nil }
        self.size = size
    }

    init(_ reader: SnapshotReader) {
        shape = reader.header.shape
        tokenCount = reader.header.tokenCount
        metadata = reader.metadata
        recipe = reader.recipe
        layers = reader.layerOutlines
        plans = reader.plans
        archivePlan = reader.archivePlan
        formatVersion = Int(reader.header.version)
        quality = reader.quality
        size = SnapshotSize(reader.sections, fileBytes: reader.fileByteCount)
    }

    /// The version of the file's format.
    public let formatVersion: Int

    /// Numbers of the cache before tokens were dropped, keys and values together: of all tokens in layers that list those
    /// which they hold, of the tokens that they hold in others. What a ratio or bits per value are relative to.
    public var valueCount: Int { valueCount { $0.held == .listed ? tokenCount : $0.extent.rowCount } }

    /// Bytes that they would take in float16.
    public var float16ByteCount: Int { SnapshotFormat.product([valueCount, 2]) ?? .max }

    /// Bits of payload per number of the cache; nil if it has none.
    public var bitsPerValue: Double? { valueCount > 0 ? Double(size.payloadBytes) * 8 / Double(valueCount) : nil }

    /// Bits of the blocks per number of the rows in blocks, sinks among them; nil if there are none.
    public var blockBitsPerValue: Double? {
        guard let pages = size.sections.first(where: { $0.kind == .pages || $0.kind == .archiveChunks }) else {
            return nil
        }
        // Sinks have room in blocks, and none in chunks.
        let isArchive = archivePlan != nil
        let count = valueCount {
            $0.extent.rowCount - $0.extent.windowRowCount - (isArchive ? $0.sinkRowCount : 0)
        }
        // Chunks may have shifts alone.
        return count > 0 ? Double(pages.storedLength) * 8 / Double(count) : nil
    }

    /// How many times smaller the whole file is than the cache's numbers in float16.
    public var ratio: Double { Double(float16ByteCount) / Double(size.fileBytes) }

    /// Numbers of some rows of each layer. A file that lies may promise more than can be counted, before its pages are
    /// looked at: then it is the most there can be.
    private func valueCount(rows: (LayerOutline) -> Int) -> Int {
        SnapshotFormat.sum(
            layers.map { SnapshotFormat.product([rows($0), $0.geometry.valuesPerToken]) }
        ) ?? .max
    }
}

extension SnapshotReader {
    /// What there is to say about the snapshot.
    public var summary: SnapshotSummary { SnapshotSummary(self) }
}
