internal import ByteStorage
public import CachePacking
public import ComputeRuntime
public import KVCacheModel

/// Some consecutive rows of a layer.
public struct LayerPiece: Sendable {
    /// The rows; `index` says of which layer of the cache they are.
    public let layer: CompressedLayer
    /// Which row of the whole layer its first one is.
    public let firstRow: Int

    /// Which rows of the whole layer it has.
    public var rows: Range<Int> { firstRow..<firstRow + layer.rowCount }
}

/// A snapshot's layers, to be had in parts so that the cache need not be in memory.
public struct SnapshotLayers: Sendable {
    private let reader: SnapshotReader
    private let slabs: [SlabDirectory.Slab]
    /// What each layer holds, without its slabs.
    private let contents: [CompressedLayer.Content]
    /// Each layer's plan without rows.
    private let empty: [CompressedLayer]
    /// The layers that have rows in their window.
    private let windows: [Int]

    fileprivate init(_ reader: SnapshotReader) throws {
        try reader.checkIsNoArchive()
        self.reader = reader
        slabs = try reader.slabList()
        contents = try reader.layerContents()
        empty = reader.emptyLayers()
        windows = contents.indices.filter { [contents] in contents[$0].window != nil }
    }

    /// Which tokens a layer's rows are of.
    public func held(layer: Int) -> HeldTokens { contents[layer].held }

    /// What a layer keeps beside keys and values.
    public func state(layer: Int) -> [LayerState] { contents[layer].state }

    /// A whole layer, its pages checked.
    public func layer(_ index: Int) async throws -> CompressedLayer {
        let places = slabs.filter { $0.layer == index }
        let bytes = Slots<SharedBytes>(count: places.count)
        try await forEachConcurrently(count: places.count) {
            bytes[$0] = try reader.bytes(of: places[$0], verifying: true)
        }
        var content = contents[index]
        content.slabs = bytes.values
        return empty[index].holding(content)
    }

    /// Pieces that are in memory at the same time.
    private static let batch = 16

    /// Hands out the whole cache, checked, in pieces of up to 256 rows of a layer: those of all layers, then the next
    /// rows, and last what is in the residual windows.
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
        let total = slabs.count + windows.count
        for first in stride(from: 0, to: total, by: Self.batch) {
            let count = min(Self.batch, total - first)
            let results = Slots<Result>(count: count)
            try await forEachConcurrently(count: count) { results[$0] = try transform(piece(first + $0)) }
            for result in results.values { try take(result) }
            progress?(Double(first + count) / Double(total))
        }
    }

    private func piece(_ index: Int) throws -> LayerPiece {
        guard index < slabs.count else {
            let layer = windows[index - slabs.count]
            return piece(of: layer, places: contents[layer].extent.windowStart..<contents[layer].extent.end)
        }
        let slab = slabs[index]
        let bytes = try reader.bytes(of: slab, verifying: true)
        let extent = contents[slab.layer].extent
        let blocks = extent.blocks(ofChunk: slab.chunk)
        let places = max(blocks.lowerBound * extent.blockLength, extent.first)..<blocks.upperBound * extent.blockLength
        return piece(of: slab.layer, places: places, slab: bytes)
    }

    /// Some places of a layer, all in one slab or in the window.
    private func piece(of layer: Int, places: Range<Int>, slab: SharedBytes? = nil) -> LayerPiece {
        let whole = contents[layer]
        let content = CompressedLayer.Content(
            extent: LayerExtent(
                first: places.lowerBound,
                end: places.upperBound,
                blockEnd: slab == nil ? whole.extent.blockEnd : places.upperBound,
                blockLength: whole.extent.blockLength
            ),
            tokenCount: whole.tokenCount,
            held: whole.held,
            slabs: slab.map { [$0] } ?? [],
            sinks: whole.sinks,
            window: slab == nil ? whole.window : nil
        )
        return LayerPiece(layer: empty[layer].holding(content), firstRow: places.lowerBound - whole.extent.first)
    }
}

extension SnapshotReader {
    /// Prepares to read the layers in parts.
    ///
    /// - Throws: `SnapshotError` if page table, sinks, window, held tokens or state are damaged; `FileError` if the file
    ///   can't be read.
    public func layers() throws -> SnapshotLayers { try SnapshotLayers(self) }
}
