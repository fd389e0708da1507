internal import CThinkKernels
internal import ComputeRuntime
internal import KVCacheModel
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
        let channels = plan.channelCount
        paddedChannels = tck_padded_dimension(channels)
        paddedComponents = tck_padded_dimension(plan.componentCount)
        paddedMatrix = Self.padded(plan.matrix, columns: channels, to: paddedChannels)
    }

    // MARK: - Matrices

    /// `[componentCount][channelCount]`: what a component is multiplied by for each channel.
    private var restoringMatrix: [Float] {
        decoder.withLock { known in
            if let known { return known }
            var matrix = scaledMatrix
            for index in matrix.indices { matrix[index] /= plan.weights[index % plan.channelCount] }
            known = matrix
            return matrix
        }
    }

    /// The matrix times the components' scales: `[componentCount][channelCount]`.
    private var scaledMatrix: [Float] {
        plan.matrix.indices.map { Float(plan.matrix[$0]) * plan.scales[$0 / plan.channelCount] }
    }

    /// `[channelCount][paddedComponents]`: what a channel, less its mean, is multiplied by for each component.
    private var turningMatrix: [Float] {
        encoder.withLock { known in
            if let known { return known }
            let matrix = Self.padded(
                ComponentBasis.turningMatrix(of: scaledMatrix, weights: plan.weights),
                columns: plan.componentCount,
                to: paddedComponents
            )
            known = matrix
            return matrix
        }
    }

    /// The matrix with zeros at the end of each row.
    private static func padded<Number: Numeric>(_ matrix: [Number], columns: Int, to width: Int) -> [Number] {
        if columns == width { return matrix }
        return stride(from: 0, to: matrix.count, by: columns).flatMap { row in
            matrix[row..<row + columns] + repeatElement(0, count: width - columns)
        }
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
                channels,
                plan.componentCount,
                channels,
                restored.baseAddress,
                channels
            )
            unsafe Kernels.best.add_means(restored.baseAddress, count, channels, plan.means, rows)
        }
    }
}
