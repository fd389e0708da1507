internal import CThinkKernels
internal import ComputeRuntime
internal import Synchronization

/// Turns rows of keys or of values of a KV head into components and back, as their plan says: Formats/calibrated.md,
/// "Components".
package final class ComponentTransform: Sendable {
    package let plan: ComponentPlan
    /// `[componentCount][paddedChannels]`, zeros beyond the channels.
    package let paddedMatrix: [Int8]
    /// Channels, and components, rounded up to a multiple of 16.
    package let paddedChannels: Int
    let paddedComponents: Int
    /// The matrices of turning and of restoring, once somebody needed them.
    private let encoder = Mutex<[Float]?>(nil)
    private let decoder = Mutex<[Float]?>(nil)

    package init(_ plan: ComponentPlan) {
        self.plan = plan
        let (channels, padded) = (plan.channelCount, tck_padded_dimension(plan.channelCount))
        paddedChannels = padded
        paddedComponents = tck_padded_dimension(plan.componentCount)
        paddedMatrix =
            channels == padded
            ? plan.matrix
            : (0..<plan.componentCount).flatMap { component in
                plan.matrix[component * channels..<(component + 1) * channels]
                    + [Int8](repeating: 0, count: padded - channels)
            }
    }

    // MARK: - Matrices

    /// `[componentCount][paddedChannels]`: what a component is multiplied by for each channel.
    private var restoringMatrix: [Float] {
        decoder.withLock { known in
            if let known { return known }
            var matrix = scaledMatrix
            for component in 0..<plan.componentCount {
                for (channel, weight) in plan.weights.enumerated() {
                    matrix[component * paddedChannels + channel] /= weight
                }
            }
            known = matrix
            return matrix
        }
    }

    /// The matrix times the components' scales: `[componentCount][paddedChannels]`.
    private var scaledMatrix: [Float] {
        var matrix = [Float](repeating: 0, count: plan.componentCount * paddedChannels)
        for (component, scale) in plan.scales.enumerated() {
            for channel in 0..<plan.channelCount {
                matrix[component * paddedChannels + channel] =
                    Float(plan.matrix[component * plan.channelCount + channel]) * scale
            }
        }
        return matrix
    }

    /// `[channelCount][paddedComponents]`: what a channel, less its mean, is multiplied by for each component.
    private var turningMatrix: [Float] {
        encoder.withLock { known in
            if let known { return known }
            var matrix = inverse
            for (channel, weight) in plan.weights.enumerated() {
                for component in 0..<plan.componentCount { matrix[channel * paddedComponents + component] *= weight }
            }
            known = matrix
            return matrix
        }
    }

    /// The inverse of the scaled matrix, or where there are fewer components than channels the matrix of least squares:
    /// two of Newton's steps from the transpose, which it is but for rounding.
    private var inverse: [Float] {
        let (components, channels) = (plan.componentCount, plan.channelCount)
        let matrix = scaledMatrix
        var inverse = [Float](repeating: 0, count: channels * paddedComponents)
        for component in 0..<components {
            for channel in 0..<channels {
                inverse[channel * paddedComponents + component] = matrix[component * paddedChannels + channel]
            }
        }
        var product = [Float](repeating: 0, count: components * paddedComponents)
        var correction = [Float](repeating: 0, count: channels * paddedComponents)
        for _ in 0..<2 {
            unsafe Kernels.best.multiply_in_order(
                matrix,
                paddedChannels,
                1,
                components,
                inverse,
                paddedComponents,
                channels,
                paddedComponents,
                &product,
                paddedComponents
            )
            unsafe Kernels.best.multiply_in_order(
                inverse,
                paddedComponents,
                1,
                channels,
                product,
                paddedComponents,
                components,
                paddedComponents,
                &correction,
                paddedComponents
            )
            for index in inverse.indices { inverse[index] = 2 * inverse[index] - correction[index] }
        }
        return inverse
    }

    // MARK: - Rows

    /// Floats that rows of components take.
    func componentFloats(rows: Int) -> Int { rows * paddedComponents }

    /// Turns rows into components, `[count][paddedComponents]`.
    ///
    /// - Returns: whether all numbers of the rows may be quantized; if not, the components are of no use.
    func turn(_ rows: tck_rows, count: Int, into components: UnsafeMutablePointer<Float>) -> Bool {
        let channels = plan.channelCount
        let matrix = turningMatrix
        return unsafe withUnsafeTemporaryAllocation(of: Float.self, capacity: count * channels) { centered in
            guard unsafe Kernels.best.subtract_means(rows, count, channels, plan.means, centered.baseAddress) else {
                return false
            }
            unsafe Kernels.best.multiply_in_order(
                centered.baseAddress,
                channels,
                1,
                count,
                matrix,
                paddedComponents,
                channels,
                paddedComponents,
                components,
                paddedComponents
            )
            for index in 0..<count * paddedComponents {
                unsafe components[index] = min(max(components[index], -Self.limit), Self.limit)
            }
            return true
        }
    }

    private static let limit = Coding.maximumMagnitude

    /// Restores rows from components, `[count][paddedComponents]`.
    func restore(_ components: UnsafePointer<Float>, count: Int, into rows: tck_mutable_rows) {
        let channels = plan.channelCount
        let matrix = restoringMatrix
        unsafe withUnsafeTemporaryAllocation(of: Float.self, capacity: count * channels) { restored in
            unsafe Kernels.best.multiply_in_order(
                components,
                paddedComponents,
                1,
                count,
                matrix,
                paddedChannels,
                plan.componentCount,
                channels,
                restored.baseAddress,
                channels
            )
            unsafe Kernels.best.add_means(restored.baseAddress, count, channels, plan.means, rows)
        }
    }
}
