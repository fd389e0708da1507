import Foundation
import ThinkCompress

/// One recipe against memcpy.
struct CodecRound {
    let layer: SyntheticLayer
    let recipe: Recipe

    struct Figure {
        /// GB/s of float16 keys and values.
        let compress: Double
        let restore: Double
        let memcpy: Double

        var numbers: [String: Double] {
            [
                "compressGBps": compress, "restoreGBps": restore, "memcpyGBps": memcpy,
                "compressToMemcpy": compress / memcpy, "restoreToMemcpy": restore / memcpy,
            ]
        }

        func row(_ name: String) -> String {
            func cell(_ number: Double, _ width: Int) -> String {
                let text = String(format: "%.2f", number)
                return String(repeating: " ", count: width - text.count) + text
            }
            return name.padding(toLength: 30, withPad: " ", startingAt: 0)
                + cell(compress, 10) + cell(compress / memcpy, 10)
                + cell(restore, 10) + cell(restore / memcpy, 10) + cell(memcpy, 10)
        }
    }

    func measure(rounds: Int) throws -> Figure {
        var copy = [UInt8](repeating: 1, count: layer.byteCount)
        var output = [UInt8](repeating: 1, count: layer.byteCount)
        var times: [(copy: Double, compress: Double, restore: Double)] = []
        // The first round warms caches and pages and doesn't count.
        for _ in 0...rounds {
            let copyTime = seconds {
                copy.withUnsafeMutableBytes { buffer in
                    for (offset, tensor) in [(0, layer.keys), (layer.keys.byteCount, layer.values)] {
                        tensor.bytes.span.withUnsafeBytes { source in
                            buffer[offset..<offset + source.count].copyBytes(from: source)
                        }
                    }
                }
            }
            var compressed: CompressedLayer?
            let compressTime = try seconds { compressed = try compress() }
            guard let compressed else { continue }
            let restoreTime = seconds { restore(compressed, into: &output) }
            times.append((copyTime, compressTime, restoreTime))
        }
        let counted = times.dropFirst()
        let gigabytes = Double(layer.byteCount) / 1e9
        return Figure(
            compress: gigabytes / median(counted.map(\.compress)),
            restore: gigabytes / median(counted.map(\.restore)),
            memcpy: gigabytes / median(counted.map(\.copy))
        )
    }

    /// What compressing a cache does, on the calling thread: decide, then pack.
    private func compress() throws -> CompressedLayer {
        let shape = BlockShape(
            kvHeads: SyntheticLayer.kvHeads,
            headDimension: SyntheticLayer.headDimension,
            elementType: .float16,
            blockLength: recipe.blockLength,
            residualWindow: recipe.residualWindow
        )
        let plans = try (0..<SyntheticLayer.kvHeads).map { head in
            var statistics = HeadStatistics(layer: 0, head: head, source: layer.cacheLayer)
            var plan = HeadPlan(headDimension: SyntheticLayer.headDimension, elementType: .float16)
            for step in recipe.steps { try step.stage.decide(&statistics, plan: &plan) }
            return plan
        }
        var result = CompressedLayer(shape: shape, index: 0, plans: plans)
        try result.append(keys: layer.keys, values: layer.values)
        return result
    }

    private func restore(_ compressed: CompressedLayer, into output: inout [UInt8]) {
        let headBytes = layer.byteCount / 2 / SyntheticLayer.kvHeads
        var offset = 0
        var span = output.mutableSpan
        for part in CachePart.allCases {
            for head in 0..<SyntheticLayer.kvHeads {
                var rows = span._mutatingExtracting(offset..<offset + headBytes)
                var bytes = rows.mutableBytes
                compressed.decompress(part, head: head, tokens: 0..<layer.tokens, as: .float16, into: &bytes)
                offset += headBytes
            }
        }
    }
}
