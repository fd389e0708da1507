import CThinkKernels
import ComputeRuntime

/// Blocks of weights with random codes and ordinary scales.
struct WeightSample {
    let type: WeightType
    /// Blocks one after another.
    let bytes: [UInt8]

    init(_ type: WeightType, bytes: [UInt8]) {
        self.type = type
        self.bytes = bytes
    }

    init(_ type: WeightType, blocks: Int, seed: Int) {
        var generator = SplitMix64(seed: UInt64(seed))
        var bytes = (0..<blocks * type.blockByteCount).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
        for block in 0..<blocks {
            let start = block * type.blockByteCount
            for place in type.scalePlaces {
                // A magnitude of 2^-8 to 2^-4 and any sign.
                let half = UInt16(truncatingIfNeeded: generator.next()) & 0x8FFF | 0x1C00
                bytes[start + place] = UInt8(half & 0xFF)
                bytes[start + place + 1] = UInt8(half >> 8)
            }
            if type.name == "MXFP4" { bytes[start] = 118 + bytes[start] % 8 }
            if type.blockLength == 1 {
                let number = Float(bytes[start]) / 64 - 2
                let pattern = type.name == "F16" ? number : Float(bitPattern: number.bitPattern & 0xFFFF_0000)
                bytes.replaceSubrange(start..<start + type.blockByteCount, with: type.encode(pattern))
            }
        }
        self.init(type, bytes: bytes)
    }

    /// The numbers of all weights, by the definition.
    var numbers: [Float] { Self.numbers(of: bytes, type: type) }

    /// Of each weight the largest magnitude that any code of its group stands for.
    var largestMagnitudes: [Float] {
        var largest = numbers.map(abs)
        for code in [0x00, 0x77, 0x7F, 0x80, 0xFF] as [UInt8] where type.blockLength > 1 {
            var changed = bytes
            for start in stride(from: 0, to: bytes.count, by: type.blockByteCount) {
                for place in type.codePlaces { changed[start + place] = code }
            }
            for (index, number) in Self.numbers(of: changed, type: type).enumerated() {
                largest[index] = max(largest[index], abs(number))
            }
        }
        return largest
    }

    static func numbers(of bytes: [UInt8], type: WeightType, with set: KernelSet = .scalar) -> [Float] {
        let count = bytes.count / type.blockByteCount * type.blockLength
        var numbers = [Float](repeating: 0, count: count)
        set.kernels.widen_weights(type.kernelType, bytes, count, &numbers)
        return numbers
    }
}

extension WeightType {
    /// The types whose weights are in blocks.
    static let inBlocks = all.filter { $0.blockLength > 1 }

    /// Where in a block there are scales and minima in float16.
    var scalePlaces: [Int] {
        switch name {
        case "Q8_0", "Q4_0", "Q5_0", "IQ4_NL": [0]
        case "Q4_1", "Q5_1", "Q4_K", "Q5_K": [0, 2]
        case "Q2_K": [80, 82]
        case "Q3_K": [108]
        case "Q6_K": [208]
        default: []
        }
    }

    /// The bytes of a block that are codes.
    fileprivate var codePlaces: Range<Int> {
        switch name {
        case "MXFP4": 1..<17
        case "Q2_K": 16..<80
        case "Q3_K": 0..<96
        case "Q4_K", "Q5_K": 16..<blockByteCount
        case "Q6_K": 0..<192
        default: (scalePlaces.count * 2)..<blockByteCount
        }
    }

    /// A number as a type without blocks has it; it must have it exactly.
    fileprivate func encode(_ number: Float) -> [UInt8] {
        let type: ElementType = name == "F32" ? .float32 : name == "F16" ? .float16 : .bfloat16
        return type.encode([number])
    }
}
