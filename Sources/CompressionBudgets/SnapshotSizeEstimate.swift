internal import CachePacking
internal import KVCacheCodecs
internal import KVCacheModel
internal import ThinKPruning

/// How large the snapshot of a cache will be by bits per number of its blocks: rather more than less.
struct SnapshotSizeEstimate {
    /// Header, section table and metadata.
    private static let bytesOfFile = 4096
    /// What a KV head's plan has beside its lists: fields, counts, ranges.
    private static let bytesOfPlan = 64
    /// What slabs are padded to.
    private static let slabAlignment = 64

    /// Bytes in float16, of all tokens before some were dropped.
    private let original: Int
    /// Bytes that are there whatever the blocks take.
    private let fixed: Int
    /// Numbers in blocks.
    private let blockNumbers: Int

    /// - Parameter residualWindow: tokens that stay in full precision at least.
    init(_ cache: CacheOutline, residualWindow: Int) {
        let tokens = cache.tokenCount
        let windowRows = tokens - max(tokens - residualWindow, 0) / cache.blockLength * cache.blockLength
        let chunks = (tokens - windowRows + BlockShape.pageTokens - 1) / BlockShape.pageTokens
        // Token ids, and a digest for each 256 of them.
        var (original, fixed, blockNumbers) = (0, Self.bytesOfFile + tokens * 4 + tokens / 8, 0)
        for (index, layer) in cache.geometry.layers.enumerated() {
            let rows = cache.rowCounts[index]
            // A layer of the last tokens may begin within a block, whose rows are then in full precision.
            let beginning = rows < tokens ? cache.blockLength - 1 : 0
            let blockRows = max(rows - windowRows - beginning, 0)
            let numbers = layer.kvHeads * (layer.keyDimension + layer.valueDimension)
            original += cache.unselectedRowCounts[index] * numbers * ElementType.float16.byteCount
            blockNumbers += blockRows * numbers
            let fullRows = rows - blockRows + min(SoftThinKCodec.defaultSinks, blockRows)
            fixed += fullRows * numbers * cache.elementType.byteCount
            // Lists of key channels; means and the query profile, in float32.
            fixed += layer.kvHeads * (Self.bytesOfPlan + 10 * layer.keyDimension + 4 * layer.valueDimension)
            if rows < tokens { fixed += layer.kvHeads * rows * 4 }
            // Geometry, quality, and an entry of the page table with the padding of its slab.
            fixed += 40 + 16 + chunks * (8 + Self.slabAlignment)
        }
        (self.original, self.fixed, self.blockNumbers) = (original, fixed, blockNumbers)
    }

    /// How many times smaller than float16 the snapshot is with so many bits per number.
    func ratio(_ budget: BitBudget) -> Double {
        Double(original) / (Double(fixed) + Double(blockNumbers) * budget.bits / 8)
    }

    /// The largest budget of a range by which the snapshot is so many times smaller than float16, or nil.
    func budget(ratio: Double, range: ClosedRange<BitBudget>) -> BitBudget? {
        guard self.ratio(range.lowerBound) >= ratio else { return nil }
        guard self.ratio(range.upperBound) < ratio else { return range.upperBound }
        let bits = (Double(original) / ratio - Double(fixed)) * 8 / Double(blockNumbers)
        return BitBudget(millibits: max(Int(bits * 1000), range.lowerBound.millibits))
    }
}
