internal import ByteStorage
internal import CachePacking
internal import KVCacheModel

/// The matrices of a unit's basis, float32, in the order that the kernels read.
///
/// All products are summed up in one order, so that the same basis gives the same matrices everywhere: Formats/archive.md,
/// "Restoring" and "Writing".
struct ArchiveTransform: Sendable {
    let channelCount: Int
    let componentCount: Int
    /// `[componentCount][channelCount]`: what a component adds to the channels; or, of a transform without basis, what each
    /// component is multiplied by.
    let restoring: [Float]
    /// `[channelCount][componentCount]`: what a channel adds to the components; or, of a transform without basis, what each
    /// channel is multiplied by. Empty where nothing is to be coded.
    let coding: [Float]
    /// Whether a component is a channel.
    let isDiagonal: Bool

    /// The transform of a plan's unit without a basis.
    init(weights: [Float]) {
        channelCount = weights.count
        componentCount = weights.count
        restoring = weights.map { 1 / $0 }
        coding = weights
        isDiagonal = true
    }

    /// - Parameter isForCoding: whether the matrix that codes is needed; it takes some products of matrices.
    init(_ basis: ComponentBasis, isForCoding: Bool) {
        let (channels, components) = (basis.channelCount, basis.componentCount)
        channelCount = channels
        componentCount = components
        isDiagonal = false
        var rows = [Float](repeating: 0, count: components * channels)
        unsafe basis.matrix.withUnsafeBytes { bytes in
            for component in 0..<components {
                let scale = basis.scales[component]
                for index in component * channels..<(component + 1) * channels {
                    rows[index] = unsafe Float(Int8(bitPattern: bytes[index])) * scale
                }
            }
        }
        restoring = rows.indices.map { rows[$0] / basis.weights[$0 % channels] }
        coding = isForCoding ? ComponentBasis.turningMatrix(of: rows, weights: basis.weights) : []
    }

    /// The rows of some components, one after another: what is read where the others are 0.
    func restoring(_ components: [Int]) -> [Float] {
        if components.count == componentCount { return restoring }
        if isDiagonal { return components.map { restoring[$0] } }
        var rows: [Float] = []
        rows.reserveCapacity(components.count * channelCount)
        for component in components {
            rows += restoring[component * channelCount..<(component + 1) * channelCount]
        }
        return rows
    }
}
