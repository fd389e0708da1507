internal import ByteStorage
public import CachePacking
public import ComputeRuntime
internal import KVCacheModel

/// Some consecutive tokens of a layer.
public struct LayerPiece: Sendable {
    /// The tokens; `index` says of which layer of the cache they are.
    public let layer: CompressedLayer
    /// Which token of the cache its first one is.
    public let firstToken: Int

    /// Which tokens of the cache it has.
    public var tokens: Range<Int> { firstToken..<firstToken + layer.tokenCount }
}

/// A snapshot's layers, to be had in parts so that the cache need not be in memory.
public struct SnapshotLayers: Sendable {
    private let reader: SnapshotReader
    private let slabs: [SlabDirectory.Slab]
    private let windows: [KVCacheLayer]?
    /// Each layer's plans without tokens.
    private let empty: [CompressedLayer]

    fileprivate init(_ reader: SnapshotReader) throws {
        self.reader = reader
        slabs = try reader.slabList()
        windows = try reader.windows()
        empty = reader.plans.enumerated().map { CompressedLayer(shape: reader.header.shape, index: $0, plans: $1) }
    }

    private var layerCount: Int { empty.count }

    /// A whole layer, its pages checked.
    public func layer(_ index: Int) async throws -> CompressedLayer {
        let places = stride(from: index, to: slabs.count, by: layerCount).map { slabs[$0] }
        let bytes = Slots<SharedBytes>(count: places.count)
        try await forEachConcurrently(count: places.count) {
            bytes[$0] = try reader.bytes(of: places[$0], verifying: true)
        }
        return empty[index].holding(
            slabs: bytes.values,
            blockCount: reader.header.blockCount,
            window: windows?[index]
        )
    }

    /// Pieces that are in memory at the same time.
    private static let batch = 16

    /// Hands out the whole cache, checked, in pieces of up to 256 tokens of a layer: those of all layers, then the next
    /// tokens, and last what is in the residual window.
    ///
    /// - Parameters:
    ///   - transform: what to do with a piece; called on all processors.
    ///   - take: takes the results, in order.
    /// - Throws: `SnapshotError` or `FileError` if a piece is not as the file's header says; what `transform` and `take`
    ///   throw; `CancellationError` if the task is cancelled.
    public func forEachPiece<Result: Sendable>(
        progress: ProgressHandler? = nil,
        transform: @escaping @Sendable (LayerPiece) throws -> Result,
        take: (Result) throws -> Void
    ) async throws {
        let total = slabs.count + (windows?.count ?? 0)
        for first in stride(from: 0, to: total, by: Self.batch) {
            let count = min(Self.batch, total - first)
            let results = Slots<Result>(count: count)
            try await forEachConcurrently(count: count) { results[$0] = try transform(piece(first + $0)) }
            for result in results.values { try take(result) }
            progress?(Double(first + count) / Double(total))
        }
    }

    private func piece(_ index: Int) throws -> LayerPiece {
        let (chunk, layer) = (index / layerCount, index % layerCount)
        let header = reader.header
        guard index < slabs.count else {
            return LayerPiece(
                layer: empty[layer].holding(slabs: [], blockCount: 0, window: windows?[layer]),
                firstToken: header.blockTokenCount
            )
        }
        let bytes = try reader.bytes(of: slabs[index], verifying: true)
        let blocks = header.shape.blocks(ofChunk: chunk, blockCount: header.blockCount)
        return LayerPiece(
            layer: empty[layer].holding(slabs: [bytes], blockCount: blocks, window: nil),
            firstToken: chunk * BlockShape.pageTokens
        )
    }
}

extension SnapshotReader {
    /// Prepares to read the layers in parts.
    ///
    /// - Throws: `SnapshotError` if page table or window are damaged; `FileError` if the file can't be read.
    public func layers() throws -> SnapshotLayers { try SnapshotLayers(self) }
}
