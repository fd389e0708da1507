internal import ByteStorage
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
        var squares: Float = 0
        for index in 0..<count { unsafe squares += input[index] * input[index] }
        let factor = 1 / (squares / Float(count) + epsilon).squareRoot()
        unsafe weight.withUnsafeBufferPointer { weight in
            for index in 0..<count { unsafe output[index] = input[index] * factor * weight[index] }
        }
    }

    /// `gate * sigmoid(gate) * up`, in place of `gate`.
    static func gate(_ gate: UnsafeMutablePointer<Float>, with up: UnsafePointer<Float>, count: Int) {
        for index in 0..<count {
            let value = unsafe gate[index]
            unsafe gate[index] = value / (1 + exp(-value)) * up[index]
        }
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
