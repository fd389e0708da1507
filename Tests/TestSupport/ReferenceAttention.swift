import Foundation
public import ThinkCompress

/// Softmax attention in float64, one query at a time: what every faster one must agree with.
///
/// The queries belong to the newest tokens and see the tokens up to their own; query heads share KV heads in groups.
public struct ReferenceAttention {
    /// Scores of all heads and queries with the tokens that they see, one after another.
    public private(set) var scores: [Double] = []
    /// `[queryHeads, queries, headDimension]`.
    public private(set) var output: [Double] = []

    /// - Parameter parts: keys and values of tokens that follow each other.
    public init(_ queries: KVTensor, over parts: [KVCacheLayer], attention: Attention = Attention()) {
        let dimension = queries.headDimension
        let scale = attention.scale.map(Double.init) ?? 1 / Double(dimension).squareRoot()
        let keys = Rows(parts.map(\.keys))
        let values = Rows(parts.map(\.values))
        let queryRows = Rows([queries])
        for head in 0..<queries.heads {
            let kvHead = head / (queries.heads / parts[0].keys.heads)
            for position in 0..<queries.tokens {
                let query = queryRows.start(head, position)
                let end = keys.count - queries.tokens + position + 1
                let visible = max(end - (attention.slidingWindow ?? end), 0)..<end
                let seen = visible.map { token -> Double in
                    let key = keys.start(kvHead, token)
                    var sum = 0.0
                    for channel in 0..<dimension {
                        sum += queryRows.numbers[query + channel] * keys.numbers[key + channel]
                    }
                    let score = sum * scale
                    return attention.logitSoftCap.map { Double($0) * tanh(score / Double($0)) } ?? score
                }
                let largest = seen.max() ?? 0
                let weights = seen.map { exp($0 - largest) }
                let sum = weights.reduce(0, +)
                var row = [Double](repeating: 0, count: dimension)
                for (index, token) in visible.enumerated() {
                    let (weight, value) = (weights[index] / sum, values.start(kvHead, token))
                    for channel in 0..<dimension { row[channel] += weight * values.numbers[value + channel] }
                }
                scores += seen
                output += row
            }
        }
    }

    /// Rows of heads in float64, of tensors whose tokens follow each other: `[heads, tokens, headDimension]`.
    private struct Rows {
        private(set) var numbers: [Double] = []
        let count: Int
        private let dimension: Int

        init(_ tensors: [KVTensor]) {
            dimension = tensors[0].headDimension
            count = tensors.reduce(0) { $0 + $1.tokens }
            let parts = tensors.map(\.numbers)
            for head in 0..<tensors[0].heads {
                for (tensor, part) in zip(tensors, parts) {
                    let size = tensor.tokens * dimension
                    numbers += part[head * size..<(head + 1) * size].map(Double.init)
                }
            }
        }

        /// Where a row's numbers begin.
        func start(_ head: Int, _ token: Int) -> Int { (head * count + token) * dimension }
    }
}
