internal import ByteStorage
internal import CThinkKernels
internal import ComputeRuntime
internal import Foundation

/// What a decoder computes on rows of numbers between matrix products.
enum RowOperations {
    /// Root-mean-square normalization: `x / sqrt(mean(x^2) + epsilon) * weight`; `output` may be `input`.
    static func normalize(
        _ input: UnsafePointer<Float>,
        weight: [Float],
        epsilon: Float,
        into output: UnsafeMutablePointer<Float>
    ) {
        let count = weight.count
        let factor = unsafe 1 / (sumOfSquares(input, count: count) / Float(count) + epsilon).squareRoot()
        unsafe weight.withUnsafeBufferPointer { weight in
            for index in 0..<count { unsafe output[index] = input[index] * factor * weight[index] }
        }
    }

    /// In sixteen parts, since a sum in order waits for every addition.
    private static func sumOfSquares(_ input: UnsafePointer<Float>, count: Int) -> Float {
        typealias Part = SIMD16<Float>
        var sums = Part.zero
        let whole = count / Part.scalarCount * Part.scalarCount
        for index in stride(from: 0, to: whole, by: Part.scalarCount) {
            let values = unsafe UnsafeRawPointer(input + index).loadUnaligned(as: Part.self)
            sums += values * values
        }
        var sum = sums.sum()
        for index in whole..<count { unsafe sum += input[index] * input[index] }
        return sum
    }

    /// `gate * sigmoid(gate) * up`, in place of `gate`.
    static func gate(_ gate: UnsafeMutablePointer<Float>, with up: UnsafePointer<Float>, count: Int) {
        unsafe Kernels.best.multiply_gates(TCK_SILU, gate, up, count)
    }

    static func add(_ addend: UnsafePointer<Float>, to sum: UnsafeMutablePointer<Float>, count: Int) {
        for index in 0..<count { unsafe sum[index] += addend[index] }
    }

    /// Turns the pairs of channels c and c + half of a head by their angles.
    static func rotate(_ head: UnsafeMutablePointer<Float>, by turn: UnsafePointer<Float>, half: Int) {
        let (cosines, sines) = unsafe (turn, turn + half)
        for index in 0..<half {
            let (first, second) = unsafe (head[index], head[index + half])
            unsafe head[index] = first * cosines[index] - second * sines[index]
            unsafe head[index + half] = second * cosines[index] + first * sines[index]
        }
    }
}

extension RotaryEmbedding {
    /// Cosines and then sines of every pair's angle, a row per position.
    ///
    /// - Throws: `MemoryError` if there is no memory for them.
    func turns(positions: [Int]) throws(MemoryError) -> FloatMatrix {
        let half = frequencies.count
        let table = try FloatMatrix(rows: positions.count, columns: 2 * half)
        for (row, position) in positions.enumerated() {
            let turn = unsafe table[row]
            for (index, frequency) in frequencies.enumerated() {
                let angle = Double(Float(position) * frequency)
                unsafe turn[index] = Float(cos(angle))
                unsafe turn[half + index] = Float(sin(angle))
            }
        }
        return table
    }
}
