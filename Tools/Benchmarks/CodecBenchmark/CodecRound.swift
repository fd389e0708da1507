import BenchmarkSupport
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
        let work = CodecWork(layer: layer, recipe: recipe)
        var times: [(copy: Double, compress: Double, restore: Double)] = []
        // The first round warms caches and pages and doesn't count.
        for _ in 0...rounds {
            times.append((seconds(work.copy), try seconds(work.compress), try seconds(work.restore)))
            work.discard()
        }
        let counted = times.dropFirst()
        let gigabytes = Double(layer.byteCount) / 1e9
        return Figure(
            compress: gigabytes / median(counted.map(\.compress)),
            restore: gigabytes / median(counted.map(\.restore)),
            memcpy: gigabytes / median(counted.map(\.copy))
        )
    }
}
