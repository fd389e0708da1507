/// Which places a layer's rows have, and which of them are in blocks: Formats/snapshot.md, "How a cache is cut".
public struct LayerExtent: Sendable, Equatable {
    /// The first row's place.
    public let first: Int
    /// The place after the last row's.
    public internal(set) var end: Int
    /// Rows at places below this one are in blocks: a multiple of `blockLength`.
    public internal(set) var blockEnd: Int
    public let blockLength: Int

    package init(first: Int, end: Int, blockEnd: Int, blockLength: Int) {
        self.first = first
        self.end = end
        self.blockEnd = blockEnd
        self.blockLength = blockLength
    }

    /// Rows of each KV head.
    public var rowCount: Int { end - first }

    /// The blocks that the layer has, by number: block b has the places from `b * blockLength` on.
    public var blocks: Range<Int> {
        blockEnd > first ? first / blockLength..<blockEnd / blockLength : 0..<0
    }

    /// The place of the residual window's first row.
    public var windowStart: Int { max(first, blockEnd) }

    /// Rows of the residual window.
    public var windowRowCount: Int { end - windowStart }

    private var blocksPerPage: Int { BlockShape.pageTokens / blockLength }

    /// The chunks of 256 places that the layer has blocks of.
    public var chunks: Range<Int> {
        let blocks = blocks
        return blocks.isEmpty ? 0..<0 : blocks.lowerBound / blocksPerPage..<(blocks.upperBound - 1) / blocksPerPage + 1
    }

    /// The layer's blocks of a chunk.
    public func blocks(ofChunk chunk: Int) -> Range<Int> {
        blocks.clamped(to: chunk * blocksPerPage..<(chunk + 1) * blocksPerPage)
    }

    /// Sinks that are in blocks, whose rows are kept beside them.
    public func sinkRowCount(sinks: Int) -> Int { min(sinks, blockEnd) }

    /// The places of blocks whose rows are to be read from them: those before have stand-ins.
    func readablePlaces(ofBlocks blocks: Range<Int>, sinks: Int) -> Range<Int> {
        let end = blocks.upperBound * blockLength
        return min(max(blocks.lowerBound * blockLength, first, sinks), end)..<end
    }
}

extension Sequence<LayerExtent> {
    /// Chunks from place 0 on, up to the last that a layer has blocks of.
    package var chunkCount: Int { reduce(0) { Swift.max($0, $1.chunks.upperBound) } }
}
