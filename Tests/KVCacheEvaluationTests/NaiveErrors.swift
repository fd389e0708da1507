import Foundation
import TestSupport
import ThinkCompress

/// Relative errors of a compressed layer, computed in float64 one query at a time.
struct NaiveErrors {
    /// Squared norms of the difference and of the original.
    struct Pair {
        private var difference = 0.0
        private var original = 0.0

        mutating func add(_ left: [Double], _ right: [Double]) {
            for (x, y) in zip(left, right) {
                difference += (x - y) * (x - y)
                original += x * x
            }
        }

        mutating func add(_ other: Pair) {
            difference += other.difference
            original += other.original
        }

        var relative: Double { (difference / original).squareRoot() }
    }

    private(set) var keys = Pair()
    private(set) var values = Pair()
    private(set) var scores = Pair()
    private(set) var attention = Pair()

    init() {}

    init(original: KVCacheLayer, restored: KVCacheLayer) {
        keys.add(original.keys.numbers.map(Double.init), restored.keys.numbers.map(Double.init))
        values.add(original.values.numbers.map(Double.init), restored.values.numbers.map(Double.init))
        guard let queries = original.queries else { return }
        let exact = NaiveAttention(original, queries: queries)
        let lossy = NaiveAttention(restored, queries: queries)
        scores.add(exact.scores, lossy.scores)
        attention.add(exact.output, lossy.output)
    }

    mutating func add(_ other: NaiveErrors) {
        keys.add(other.keys)
        values.add(other.values)
        scores.add(other.scores)
        attention.add(other.attention)
    }
}

/// Softmax attention of the observation window in float64: query j belongs to token `tokens - window + j` and sees the
/// tokens up to it; query heads share KV heads in groups.
struct NaiveAttention {
    /// Scores of all heads and queries with the tokens that they see, one after another.
    private(set) var scores: [Double] = []
    /// `[queryHeads, window, headDimension]`.
    private(set) var output: [Double] = []

    init(_ layer: KVCacheLayer, queries: KVTensor) {
        let dimension = layer.keys.headDimension
        let tokens = layer.keys.tokens
        let (q, k, v) = (queries.numbers, layer.keys.numbers, layer.values.numbers)
        for head in 0..<queries.heads {
            let firstRow = head / (queries.heads / layer.keys.heads) * tokens
            for query in 0..<queries.tokens {
                let row = (head * queries.tokens + query) * dimension
                let seen = (0..<tokens - queries.tokens + query + 1).map { token -> Double in
                    let key = (firstRow + token) * dimension
                    var score = 0.0
                    for channel in 0..<dimension { score += Double(q[row + channel]) * Double(k[key + channel]) }
                    return score / Double(dimension).squareRoot()
                }
                let largest = seen.max() ?? 0
                let weights = seen.map { exp($0 - largest) }
                let sum = weights.reduce(0, +)
                scores += seen
                output += (0..<dimension).map { channel in
                    weights.enumerated().reduce(0) { total, weight in
                        total + weight.element / sum * Double(v[(firstRow + weight.offset) * dimension + channel])
                    }
                }
            }
        }
    }
}
