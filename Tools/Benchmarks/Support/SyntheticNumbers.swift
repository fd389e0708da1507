import Foundation
import ThinkCompress

/// Seeded numbers of about normal distribution.
struct SyntheticNumbers {
    private var state: UInt64

    init(seed: UInt64 = 0x9E37_79B9_7F4A_7C15) { state = seed }

    /// A tensor of float16; channels differ in magnitude, and a few outliers, if asked for, in mean.
    mutating func tensor(
        heads: Int,
        rows: Int,
        dimension: Int,
        outliers: Bool,
        magnitude: Float = 1
    ) -> KVTensor {
        var bytes = [UInt8](repeating: 0, count: heads * rows * dimension * 2)
        bytes.withUnsafeMutableBytes { buffer in
            let halves = buffer.bindMemory(to: UInt16.self)
            for index in halves.indices {
                let channel = index % dimension
                let shift: Float = outliers && channel % 29 == 5 ? 6 : 0
                halves[index] = Float16(magnitude * next() * (0.4 + Float(channel % 7) * 0.3) + shift).bitPattern
            }
        }
        return KVTensor(
            bytes: SharedBytes(bytes),
            elementType: .float16,
            heads: heads,
            tokens: rows,
            headDimension: dimension
        )
    }

    /// The sum of four uniform numbers: near enough to normal for ranges, and quick.
    private mutating func next() -> Float {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        let parts = SIMD4<Float>(
            Float(state & 0xFFFF),
            Float(state >> 16 & 0xFFFF),
            Float(state >> 32 & 0xFFFF),
            Float(state >> 48)
        )
        return (parts.sum() - 2 * 65535) / 37837
    }
}
