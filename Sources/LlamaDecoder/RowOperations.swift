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

    /// The activation of `gate`, times `up`, in place of `gate`.
    static func gate(
        _ gate: UnsafeMutablePointer<Float>,
        with up: UnsafePointer<Float>,
        count: Int,
        activation: ModelConfiguration.Activation
    ) {
        switch activation {
        case .silu:
            for index in 0..<count {
                let value = unsafe gate[index]
                unsafe gate[index] = value / (1 + exp(-value)) * up[index]
            }
        case .gelu:
            let scale = Float(2 / Double.pi).squareRoot()
            for index in 0..<count {
                let value = unsafe gate[index]
                let bent = tanh(scale * (value + 0.044715 * value * value * value))
                unsafe gate[index] = 0.5 * value * (1 + bent) * up[index]
            }
        }
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
