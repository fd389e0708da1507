import CThinkKernels
import TestSupport

#if canImport(Darwin)
    import Darwin
#else
    import Glibc
#endif

/// Attention in float64 over all tiles at once, without the kernels, by scores as these take them: logarithms to base 2.
struct ReferenceTiles {
    private let queryCount: Int
    private let valueDimension: Int
    /// A score and a value for each token that a query sees.
    private var scores: [[Double]]
    private var values: [[[Float]]]

    init(queryCount: Int, valueDimension: Int) {
        self.queryCount = queryCount
        self.valueDimension = valueDimension
        scores = Array(repeating: [], count: queryCount)
        values = Array(repeating: [], count: queryCount)
    }

    /// Adds a tile of blocks, whose scores get the queries' offsets.
    mutating func add(_ blocks: AttentionBlocks, queries: AttentionQueries) {
        let (keys, values) = blocks.restored()
        add(
            keys: keys,
            channels: blocks.plan.keptChannels.map(Int.init),
            values: values,
            tokens: blocks.tokens,
            queries: queries,
            offsets: queries.offsets
        )
    }

    /// Adds a tile of rows.
    mutating func add(keys: SampleRows, values: SampleRows, queries: AttentionQueries) {
        func floats(_ rows: SampleRows) -> [Float] {
            (0..<rows.tokens).flatMap { token in
                (0..<rows.headDimension).map { rows.value(token: token, channel: $0) }
            }
        }
        add(
            keys: floats(keys),
            channels: Array(0..<keys.headDimension),
            values: floats(values),
            tokens: keys.tokens,
            queries: queries,
            offsets: Array(repeating: 0, count: queries.count)
        )
    }

    private mutating func add(
        keys: [Float],
        channels: [Int],
        values: [Float],
        tokens: Int,
        queries: AttentionQueries,
        offsets: [Float]
    ) {
        let cap = Double(queries.softCap)
        for row in 0..<queryCount {
            let query = channels.map { Double(queries.value(row: row, channel: $0)) }
            let visible = queries.visible[row]
            for token in visible.first..<max(visible.first, min(visible.end, tokens)) {
                var score = Double(offsets[row])
                for index in channels.indices { score += query[index] * Double(keys[token * channels.count + index]) }
                scores[row].append(cap > 0 ? cap * tanh(score / cap) : score)
                self.values[row].append(Array(values[token * valueDimension..<(token + 1) * valueDimension]))
            }
        }
    }

    /// A query's output; null if it has seen nothing.
    func output(row: Int) -> [Double]? {
        guard !scores[row].isEmpty else { return nil }
        return ReferenceAttention.output(scores: scores[row].map { $0 * log(2) }, dimension: valueDimension) {
            Double(values[row][$0][$1])
        }
    }
}

/// The largest relative L2 error of the queries' outputs; infinite where one has an output and the other has none.
func largestError(_ actual: (Int) -> [Double]?, against expected: (Int) -> [Double]?, rows: Int) -> Double {
    (0..<rows).map { row in
        switch (actual(row), expected(row)) {
        case (nil, nil): return 0
        case (let actual?, let expected?):
            let error = zip(actual, expected).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
            let relative = (error / expected.reduce(0) { $0 + $1 * $1 }).squareRoot()
            return relative.isNaN ? .infinity : relative
        default: return .infinity
        }
    }.max() ?? 0
}
