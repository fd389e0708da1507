import Foundation
import TestSupport
import ThinkCompress

/// Attention in float64 over keys and values as they are restored: what attention on the compressed cache must agree
/// with.
struct ReferenceAttention {
    let attention: Attention
    let queries: KVTensor
    let layer: CompressedLayer
    let newer: KVCacheLayer?

    /// `[queries, queryHeads, headDimension]`.
    func output() -> [Double] {
        let dimension = queries.headDimension
        let group = queries.heads / layer.shape.kvHeads
        let restored = layer.decompress(tokens: 0..<layer.tokenCount, as: .float32)
        let keys = Rows(restored.keys, newer?.keys)
        let values = Rows(restored.values, newer?.values)
        let queryRows = Rows(queries, nil)
        let total = layer.tokenCount + (newer?.keys.tokens ?? 0)
        var result = [Double](repeating: 0, count: queries.tokens * queries.heads * dimension)
        for head in 0..<layer.shape.kvHeads {
            for member in 0..<group {
                let queryHead = head * group + member
                for position in 0..<queries.tokens {
                    let query = queryRows.row(head: queryHead, token: position)
                    let end = total - queries.tokens + position + 1
                    let first = attention.slidingWindow.map { max(end - $0, 0) } ?? 0
                    let row = attend(query, head: head, keys: keys, values: values, visible: first..<end)
                    let place = (position * queries.heads + queryHead) * dimension
                    result.replaceSubrange(place..<place + dimension, with: row)
                }
            }
        }
        return result
    }

    private func attend(_ query: [Double], head: Int, keys: Rows, values: Rows, visible: Range<Int>) -> [Double] {
        let dimension = query.count
        let scale = attention.scale.map(Double.init) ?? 1 / Double(dimension).squareRoot()
        var scores = visible.map { token in
            let sum = zip(query, keys.row(head: head, token: token)).reduce(0) { $0 + $1.0 * $1.1 } * scale
            return attention.logitSoftCap.map { Double($0) * tanh(sum / Double($0)) } ?? sum
        }
        let maximum = scores.max() ?? 0
        scores = scores.map { exp($0 - maximum) }
        let sum = scores.reduce(0, +)
        var output = [Double](repeating: 0, count: dimension)
        for (score, token) in zip(scores, visible) {
            for (channel, value) in values.row(head: head, token: token).enumerated() {
                output[channel] += score / sum * value
            }
        }
        return output
    }
}

/// The numbers of a tensor, and of one whose tokens follow, in float64.
private struct Rows {
    private let older: [Double]
    private let newer: [Double]
    private let olderTokens: Int
    private let newerTokens: Int
    private let dimension: Int

    init(_ older: KVTensor, _ newer: KVTensor?) {
        self.older = older.numbers.map(Double.init)
        self.newer = newer?.numbers.map(Double.init) ?? []
        olderTokens = older.tokens
        newerTokens = newer?.tokens ?? 0
        dimension = older.headDimension
    }

    func row(head: Int, token: Int) -> [Double] {
        let isOlder = token < olderTokens
        let start = (isOlder ? head * olderTokens + token : head * newerTokens + token - olderTokens) * dimension
        return Array((isOlder ? older : newer)[start..<start + dimension])
    }
}

/// `||a - b|| / ||b||`.
func relativeError(_ output: [Float], _ reference: [Double]) -> Double {
    var difference = 0.0
    var norm = 0.0
    for (left, right) in zip(output, reference) {
        difference += (Double(left) - right) * (Double(left) - right)
        norm += right * right
    }
    return (difference / norm).squareRoot()
}
