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

    /// The activation of `gate`, times `up`, in place of `gate`.
    static func gate(
        _ gate: UnsafeMutablePointer<Float>,
        with up: UnsafePointer<Float>,
        count: Int,
        activation: ModelConfiguration.Activation
    ) {
        let kind =
            switch activation {
            case .silu: TCK_SILU
            case .gelu: TCK_GELU
            }
        unsafe Kernels.best.multiply_gates(kind, gate, up, count)
    }

    /// `cap * tanh(x / cap)`, in place.
    static func bend(_ numbers: UnsafeMutablePointer<Float>, to cap: Float, count: Int) {
        for index in 0..<count { unsafe numbers[index] = cap * tanh(numbers[index] / cap) }
    }

    static func add(_ addend: UnsafePointer<Float>, to sum: UnsafeMutablePointer<Float>, count: Int) {
        for index in 0..<count { unsafe sum[index] += addend[index] }
    }

    static func multiply(_ numbers: UnsafeMutablePointer<Float>, by factor: Float, count: Int) {
        for index in 0..<count { unsafe numbers[index] *= factor }
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
