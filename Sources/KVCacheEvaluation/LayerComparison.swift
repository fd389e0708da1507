internal import ByteStorage
internal import CompressedAttention
internal import KVCacheCodecs
internal import KVCacheModel

/// A layer in full precision and compressed, to be compared head by head.
struct LayerComparison: Sendable {
    let original: KVCacheLayer
    let compressed: CompressedLayer
    /// How many tokens a query sees, its own included.
    let slidingWindow: Int

    func measure(head: Int) throws(MemoryError) -> ErrorSums {
        let dimension = original.keys.headDimension
        let tokenCount = original.keys.tokens
        let tile = TileAttention.maximumTokens
        var buffers = [[Float]](repeating: [Float](repeating: 0, count: tile * dimension), count: 4)
        let observation = original.queries.map { queries in
            let last = max(queries.tokens - QualityMeasurement.maximumQueries, 0)..<queries.tokens
            return Observation(queries: queries[tokens: last], head: head, kvHeads: original.keys.heads)
        }
        func attention(_ observation: Observation) throws(MemoryError) -> TileAttention {
            try TileAttention(queries: observation.rows, keyDimension: dimension, valueDimension: dimension)
        }
        let exact = try observation.map(attention)
        let lossy = try observation.map(attention)
        var sums = ErrorSums()
        if observation != nil { sums.scores = ErrorSums.Pair() }
        for start in stride(from: 0, to: tokenCount, by: tile) {
            let count = min(tile, tokenCount - start)
            widen(original.keys, head: head, from: start, count: count, into: &buffers[0])
            widen(original.values, head: head, from: start, count: count, into: &buffers[1])
            restore(.keys, head: head, tokens: start..<start + count, into: &buffers[2])
            restore(.values, head: head, tokens: start..<start + count, into: &buffers[3])
            for index in 0..<count * dimension {
                sums.keys.add(buffers[0][index], buffers[2][index])
                sums.values.add(buffers[1][index], buffers[3][index])
            }
            guard let observation else { continue }
            let visible = observation.visible(
                tile: start..<start + count,
                tokenCount: tokenCount,
                slidingWindow: slidingWindow
            )
            exact?.add(keys: buffers[0], values: buffers[1], count: count, visible: visible)
            lossy?.add(keys: buffers[2], values: buffers[3], count: count, visible: visible)
            guard let exactScores = exact?.scores, let lossyScores = lossy?.scores else { continue }
            for (row, seen) in visible.enumerated() {
                for index in row * count + seen.lowerBound..<row * count + seen.upperBound {
                    sums.scores?.add(exactScores[index], lossyScores[index])
                }
            }
        }
        if let exact, let lossy {
            var pair = ErrorSums.Pair()
            for (left, right) in zip(exact.result, lossy.result) { pair.add(left, right) }
            sums.attention = pair
        }
        return sums
    }

    private func widen(_ tensor: KVTensor, head: Int, from token: Int, count: Int, into buffer: inout [Float]) {
        unsafe buffer.withUnsafeMutableBufferPointer { pointer in
            guard let base = pointer.baseAddress else { return }
            unsafe tensor.widenRows(head: head, from: token, count: count, into: base)
        }
    }

    private func restore(
        _ part: CachePart,
        head: Int,
        tokens: Range<Int>,
        into buffer: inout [Float]
    ) {
        var elements = buffer.mutableSpan
        var bytes = unsafe elements.mutableBytes
        compressed.decompress(part, head: head, tokens: tokens, as: .float32, into: &bytes)
    }
}

/// The observation queries of a KV head's group: all rows of its query heads.
private struct Observation {
    /// `[group * window, headDimension]`.
    let rows: [Float]
    private let rowCount: Int
    private let window: Int

    init(queries: KVTensor, head: Int, kvHeads: Int) {
        let group = queries.heads / kvHeads
        let size = queries.tokens * queries.headDimension
        var rows = [Float](repeating: 0, count: group * size)
        unsafe rows.withUnsafeMutableBufferPointer { pointer in
            guard let base = pointer.baseAddress else { return }
            for member in 0..<group {
                unsafe queries.widenRows(
                    head: head * group + member,
                    from: 0,
                    count: queries.tokens,
                    into: base + member * size
                )
            }
        }
        self.rows = rows
        rowCount = group * queries.tokens
        window = queries.tokens
    }

    /// Which of a tile's tokens each row sees: query j of the window belongs to token `tokenCount - window + j`.
    func visible(tile: Range<Int>, tokenCount: Int, slidingWindow: Int) -> [Range<Int>] {
        (0..<rowCount).map { row in
            let end = tokenCount - window + row % window + 1
            let first = slidingWindow < end ? end - slidingWindow : 0
            func place(_ token: Int) -> Int { min(max(token - tile.lowerBound, 0), tile.count) }
            return place(first)..<place(end)
        }
    }
}
