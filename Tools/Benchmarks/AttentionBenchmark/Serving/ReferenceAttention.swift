import Foundation
import ThinkCompress

/// Attention in float64 over a decompressed layer.
struct ReferenceAttention {
    /// Query positions that are compared, spread over all of them: more take long and show nothing new.
    private static let mostPositions = 8

    let layer: CompressedLayer
    let queries: KVTensor

    /// The relative error, in L2, of an output `[queries, queryHeads, headDimension]`.
    func relativeError(of output: [Float]) -> Double {
        let dimension = queries.headDimension
        let group = queries.heads / layer.geometry.kvHeads
        let count = min(queries.tokens, Self.mostPositions)
        let positions = (0..<count).map { ($0 + 1) * queries.tokens / count - 1 }
        var difference = 0.0
        var norm = 0.0
        for kvHead in 0..<layer.geometry.kvHeads {
            let keys = restored(.keys, head: kvHead)
            let values = restored(.values, head: kvHead)
            for head in kvHead * group..<(kvHead + 1) * group {
                for position in positions {
                    let truth = attend(head: head, position: position, keys: keys, values: values)
                    let start = (position * queries.heads + head) * dimension
                    for channel in 0..<dimension {
                        let error = Double(output[start + channel]) - truth[channel]
                        difference += error * error
                        norm += truth[channel] * truth[channel]
                    }
                }
            }
        }
        return (difference / norm).squareRoot()
    }

    private func restored(_ part: CachePart, head: Int) -> [Float] {
        var rows = [Float](repeating: 0, count: layer.tokenCount * queries.headDimension)
        var span = rows.mutableSpan
        var bytes = span.mutableBytes
        layer.decompress(part, head: head, rows: 0..<layer.tokenCount, as: .float32, into: &bytes)
        return rows
    }

    private func attend(head: Int, position: Int, keys: [Float], values: [Float]) -> [Double] {
        let dimension = queries.headDimension
        let query = (0..<dimension).map { channel in
            let offset = head * queries.headStride + position * queries.tokenStride + channel * 2
            let bits = queries.bytes.span.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self)
            return Double(Float16(bitPattern: bits)) / Double(dimension).squareRoot()
        }
        let visible = layer.tokenCount - queries.tokens + position + 1
        var weights = (0..<visible).map { token in
            var score = 0.0
            for channel in 0..<dimension { score += query[channel] * Double(keys[token * dimension + channel]) }
            return score
        }
        let most = weights.max() ?? 0
        var sum = 0.0
        for token in weights.indices {
            weights[token] = exp(weights[token] - most)
            sum += weights[token]
        }
        var result = [Double](repeating: 0, count: dimension)
        for token in weights.indices {
            let weight = weights[token] / sum
            for channel in 0..<dimension { result[channel] += weight * Double(values[token * dimension + channel]) }
        }
        return result
    }
}
