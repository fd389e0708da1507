import Foundation
public import ThinkCompress

/// Softmax attention in float64, one query at a time: what every faster one must agree with.
///
/// The queries belong to the newest tokens and see the tokens up to their own, so far as they are held; query heads share
/// KV heads in groups.
public struct ReferenceAttention {
    /// Scores of all heads and queries with the tokens that they see, one after another.
    public private(set) var scores: [Double] = []
    /// `[queryHeads, queries, valueDimension]`, zeros for a query that sees no token.
    public private(set) var output: [Double] = []
    private let queryHeads: Int
    private let queryCount: Int
    private let valueDimension: Int

    /// - Parameters:
    ///   - parts: keys and values of tokens that follow each other; the first part may hold some of them only.
    ///   - tokenCount: tokens of the cache that the first part is of; nil for as many as it has rows.
    public init(
        _ queries: KVTensor,
        over parts: [KVCacheLayer],
        tokenCount: Int? = nil,
        attention: Attention = Attention()
    ) {
        let scale = attention.scale.map(Double.init) ?? 1 / Double(queries.headDimension).squareRoot()
        let keys = Rows(parts.map(\.keys))
        let values = Rows(parts.map(\.values))
        let queryRows = Rows([queries])
        (queryHeads, queryCount, valueDimension) = (queries.heads, queries.tokens, values.dimension)
        func start(of token: Int, in tokens: [Int]) -> Int { tokens.firstIndex { $0 >= token } ?? tokens.count }
        let firstCount = tokenCount ?? parts[0].keys.tokens
        let end = firstCount + keys.count - parts[0].keys.tokens
        for head in 0..<queries.heads {
            let kvHead = head / (queries.heads / parts[0].keys.heads)
            let tokens = parts[0].tokens(head: kvHead, of: firstCount) + Array(firstCount..<end)
            for position in 0..<queries.tokens {
                let query = queryRows.start(head, position)
                let ownEnd = end - queries.tokens + position + 1
                let visible = max(ownEnd - (attention.slidingWindow ?? ownEnd), 0)..<ownEnd
                let rows = start(of: visible.lowerBound, in: tokens)..<start(of: visible.upperBound, in: tokens)
                let seen = rows.map { row -> Double in
                    let key = keys.start(kvHead, row)
                    var sum = 0.0
                    for channel in 0..<keys.dimension {
                        sum += queryRows.numbers[query + channel] * keys.numbers[key + channel]
                    }
                    let score = sum * scale
                    return attention.logitSoftCap.map { Double($0) * tanh(score / Double($0)) } ?? score
                }
                scores += seen
                // A sink is a token more, whose value is zero.
                let sinks = attention.sinkLogits.map { [Double($0[head])] } ?? []
                output += Self.output(scores: seen + sinks, dimension: values.dimension) {
                    $0 == seen.count ? 0 : values.numbers[values.start(kvHead, rows.lowerBound + $0) + $1]
                }
            }
        }
    }

    /// The mean of values by the softmax of scores; zeros if there are none.
    ///
    /// - Parameter value: the number of the value of a score and of a channel.
    public static func output(scores: [Double], dimension: Int, value: (Int, Int) -> Double) -> [Double] {
        let largest = scores.max() ?? 0
        let weights = scores.map { exp($0 - largest) }
        let sum = weights.reduce(0, +)
        var result = [Double](repeating: 0, count: dimension)
        for (index, weight) in weights.enumerated() {
            for channel in 0..<dimension { result[channel] += weight / sum * value(index, channel) }
        }
        return result
    }

    /// The relative error of an output as `Attention` gives it, `[queries, queryHeads, valueDimension]`, in the norm over
    /// all of it.
    public func relativeError(of output: [Float]) -> Double {
        precondition(output.count == self.output.count, "an output of other queries")
        var (difference, norm) = (0.0, 0.0)
        for (index, exact) in self.output.enumerated() {
            let (row, channel) = index.quotientAndRemainder(dividingBy: valueDimension)
            let (head, position) = row.quotientAndRemainder(dividingBy: queryCount)
            let own = Double(output[(position * queryHeads + head) * valueDimension + channel])
            difference += (own - exact) * (own - exact)
            norm += exact * exact
        }
        return difference == 0 ? 0 : (difference / norm).squareRoot()
    }

    /// Rows of heads in float64, of tensors whose tokens follow each other: `[heads, tokens, headDimension]`.
    private struct Rows {
        private(set) var numbers: [Double] = []
        let count: Int
        let dimension: Int

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

extension KVCacheLayer {
    /// The tokens of a head's rows, of a cache of `count` tokens.
    fileprivate func tokens(head: Int, of count: Int) -> [Int] {
        switch held {
        case .all, .last: Array(count - keys.tokens..<count)
        case .listed(let lists): lists[head].map(Int.init)
        }
    }
}
