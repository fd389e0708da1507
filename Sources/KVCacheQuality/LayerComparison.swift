internal import ByteStorage
internal import CachePacking
internal import CompressedAttention
internal import KVCacheModel

/// A layer in full precision and compressed, to be compared head by head.
struct LayerComparison: Sendable {
    /// The rows of the tokens that the compressed layer holds.
    let original: KVCacheLayer
    let compressed: CompressedLayer
    /// The layer with all of its rows, whose attention is the exact one; nil if the original has no others.
    let whole: KVCacheLayer?
    /// How many tokens a query sees, its own included.
    let slidingWindow: Int

    func measure(head: Int) throws(MemoryError) -> ErrorSums {
        let (keyDimension, valueDimension) = (original.keys.headDimension, original.values.headDimension)
        let rowCount = original.keys.tokens
        let tile = TileAttention.maximumTokens
        func buffer(_ dimension: Int) -> [Float] { [Float](repeating: 0, count: tile * dimension) }
        var (keys, restoredKeys) = (buffer(keyDimension), buffer(keyDimension))
        var (values, restoredValues) = (buffer(valueDimension), buffer(valueDimension))
        // Without values there is no attention output.
        let observation = (valueDimension > 0 ? original.queries : nil).map { queries in
            let last = max(queries.tokens - QualityMeasurement.maximumQueries, 0)..<queries.tokens
            return Observation(queries: queries[tokens: last], head: head, kvHeads: original.keys.heads)
        }
        func attention(_ observation: Observation) throws(MemoryError) -> TileAttention {
            try TileAttention(
                queries: observation.rows,
                keyDimension: keyDimension,
                valueDimension: valueDimension
            )
        }
        let exact = try observation.map(attention)
        let lossy = try observation.map(attention)
        var sums = ErrorSums()
        if observation != nil { sums.scores = ErrorSums.Pair() }
        for start in stride(from: 0, to: rowCount, by: tile) {
            let count = min(tile, rowCount - start)
            widen(original.keys, head: head, from: start, count: count, into: &keys)
            widen(original.values, head: head, from: start, count: count, into: &values)
            restore(.keys, head: head, rows: start..<start + count, into: &restoredKeys)
            restore(.values, head: head, rows: start..<start + count, into: &restoredValues)
            for index in 0..<count * keyDimension { sums.keys.add(keys[index], restoredKeys[index]) }
            for index in 0..<count * valueDimension { sums.values.add(values[index], restoredValues[index]) }
            guard let observation else { continue }
            let visible = observation.visible(tokenCount: compressed.tokenCount, slidingWindow: slidingWindow) {
                tokens in
                let first = compressed.extent.first + start
                let places = compressed.places(ofTokens: tokens, head: head).clamped(to: first..<first + count)
                return places.lowerBound - first..<places.upperBound - first
            }
            exact?.add(keys: keys, values: values, count: count, visible: visible)
            lossy?.add(keys: restoredKeys, values: restoredValues, count: count, visible: visible)
            guard let exactScores = exact?.scores, let lossyScores = lossy?.scores else { continue }
            for (row, seen) in visible.enumerated() {
                for index in row * count + seen.lowerBound..<row * count + seen.upperBound {
                    sums.scores?.add(exactScores[index], lossyScores[index])
                }
            }
        }
        sums.scores?.hide(errorsOf: sums.keys)
        if let observation, let exact, let lossy {
            var output = exact.result
            if let whole {
                let attention = try attention(observation)
                for start in stride(from: 0, to: whole.keys.tokens, by: tile) {
                    let count = min(tile, whole.keys.tokens - start)
                    widen(whole.keys, head: head, from: start, count: count, into: &keys)
                    widen(whole.values, head: head, from: start, count: count, into: &values)
                    let visible = observation.visible(
                        tokenCount: compressed.tokenCount,
                        slidingWindow: slidingWindow
                    ) { tokens in
                        func row(_ token: Int) -> Int {
                            let row = whole.row(ofTokensFrom: token, head: head, tokenCount: compressed.tokenCount)
                            return min(max(row - start, 0), count)
                        }
                        return row(tokens.lowerBound)..<row(tokens.upperBound)
                    }
                    attention.add(keys: keys, values: values, count: count, visible: visible)
                }
                output = attention.result
            }
            var pair = ErrorSums.Pair()
            for (left, right) in zip(output, lossy.result) { pair.add(left, right) }
            // What was dropped is an error that no key or value shows.
            if whole != nil { pair.invalidateIfNotFinite() } else { pair.hide(errorsOf: sums.keys, sums.values) }
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
        rows: Range<Int>,
        into buffer: inout [Float]
    ) {
        var elements = buffer.mutableSpan
        var bytes = unsafe elements.mutableBytes
        compressed.decompress(part, head: head, rows: rows, as: .float32, into: &bytes)
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

    /// What each row sees of a tile: query j of the window belongs to token `tokenCount - window + j`.
    ///
    /// - Parameter places: which rows of the tile are of some tokens.
    func visible(tokenCount: Int, slidingWindow: Int, places: (Range<Int>) -> Range<Int>) -> [Range<Int>] {
        (0..<rowCount).map { row in
            let end = tokenCount - window + row % window + 1
            return places((slidingWindow < end ? end - slidingWindow : 0)..<end)
        }
    }
}
