internal import ByteStorage
internal import COpenBLAS
internal import KVCacheModel

/// The covariance of vectors about their mean, a mean over prefixes, each of which has a mean of its own.
///
/// Source: Formats/profile.md, "How bases are made".
final class VectorCovariance {
    let channelCount: Int
    /// The sum over prefixes, `[channelCount][channelCount]`, its lower triangle.
    private let sums: DoubleBuffer
    private var prefixCount = 0

    /// - Throws: `MemoryError` if there is no memory for it.
    init(channelCount: Int) throws(MemoryError) {
        self.channelCount = channelCount
        sums = try DoubleBuffer(count: channelCount * channelCount)
    }

    /// Adds a prefix's vectors, from which their mean is subtracted in place. The caller holds `SingleThreadedProducts`.
    ///
    /// - Parameter vectors: `[tokens][channelCount]`, at least one token.
    /// - Returns: whether all variances are finite as float32; nothing is added otherwise.
    /// - Throws: `MemoryError` if there is no memory for the work.
    func add(_ vectors: DoubleBuffer) throws(MemoryError) -> Bool {
        let tokens = vectors.count / channelCount
        precondition(tokens > 0 && tokens * channelCount == vectors.count, "a covariance is of whole vectors")
        var means = [Double](repeating: 0, count: channelCount)
        let numbers = unsafe vectors.pointer()
        for token in 0..<tokens {
            for channel in 0..<channelCount { means[channel] += unsafe numbers[token * channelCount + channel] }
        }
        for channel in means.indices { means[channel] /= Double(tokens) }
        for token in 0..<tokens {
            for channel in 0..<channelCount { unsafe numbers[token * channelCount + channel] -= means[channel] }
        }
        let product = try DoubleBuffer(count: channelCount * channelCount)
        let width = Int32(channelCount)
        unsafe cblas_dsyrk(
            CblasRowMajor,
            CblasLower,
            CblasTrans,
            width,
            Int32(tokens),
            1 / Double(tokens),
            numbers,
            width,
            0,
            product.pointer(),
            width
        )
        // A number that is not finite makes its channel's variance so; variances are written as float32.
        guard (0..<channelCount).allSatisfy({ Float(product[$0 * channelCount + $0]).isFinite }) else { return false }
        let target = unsafe sums.pointer()
        let source = unsafe product.pointer()
        for row in 0..<channelCount {
            for place in row * channelCount...row * channelCount + row { unsafe target[place] += source[place] }
        }
        prefixCount += 1
        return true
    }

    /// The variance of each channel.
    var variances: [Double] {
        (0..<channelCount).map { sums[$0 * channelCount + $0] / Double(max(prefixCount, 1)) }
    }

    /// The components of the vectors whose channels are multiplied by weights, by falling variance; the covariance's memory
    /// is used for them, so that it is of no more use.
    ///
    /// - Parameter weights: of each channel, finite and above 0. The caller holds `SingleThreadedProducts`.
    /// - Throws: `EvaluationError` if they can't be found; `MemoryError`.
    func basis(weights: [Float]) throws -> ComponentBasis {
        let width = channelCount
        let matrix = sums
        let numbers = unsafe matrix.pointer()
        let share = 1 / Double(max(prefixCount, 1))
        for row in 0..<width {
            let weight = Double(weights[row]) * share
            for column in 0...row {
                let place = row * width + column
                unsafe numbers[place] = weight * Double(weights[column]) * numbers[place]
            }
        }
        let values = try Self.eigenvectors(of: matrix, width: width)
        var scales = [Float](repeating: 0, count: width)
        let bytes = try SharedBytes(byteCount: width * width) { bytes in
            for component in 0..<width {
                // LAPACK's come by rising variance.
                let row = unsafe matrix.pointer(from: (width - 1 - component) * width)
                let extent = (0..<width).reduce(0) { unsafe max($0, abs(row[$1])) }
                let scale = Float(extent / 127)
                scales[component] = scale
                func entry(_ channel: Int) -> Double {
                    max(-127, min(127, unsafe (row[channel] / Double(scale)).rounded(.toNearestOrEven)))
                }
                // Either of two opposite vectors would do.
                let first = (0..<width).first { abs(entry($0)) == 127 } ?? 0
                let sign: Double = entry(first) < 0 ? -1 : 1
                for channel in 0..<width {
                    bytes.storeBytes(
                        of: Int8(sign * entry(channel)),
                        toByteOffset: component * width + channel,
                        as: Int8.self
                    )
                }
            }
        }
        return ComponentBasis(
            matrix: bytes,
            scales: scales,
            variances: values.reversed().map { Float(max($0, 0)) },
            weights: weights
        )
    }

    /// The eigenvalues of a symmetric matrix, ascending, of which the lower triangle is given; its eigenvectors, each one's
    /// numbers side by side, replace it.
    ///
    /// - Throws: `EvaluationError` if OpenBLAS has no LAPACK, or doesn't find them; `MemoryError`.
    static func eigenvectors(of matrix: DoubleBuffer, width: Int) throws -> [Double] {
        guard tcb_has_lapack() else {
            throw EvaluationError(
                "this OpenBLAS was built without LAPACK, by which bases are made; use another, or --basis none"
            )
        }
        let order = Int32(width)
        let values = try DoubleBuffer(count: width)
        let work = try DoubleBuffer(count: tcb_eigenvector_doubles(order))
        var integers = [Int32](repeating: 0, count: tcb_eigenvector_integers(order))
        let result = unsafe tcb_eigenvectors(order, matrix.pointer(), values.pointer(), work.pointer(), &integers)
        guard result == 0 else {
            throw EvaluationError("the components of \(width) channels weren't found (LAPACK's dsyevd: \(result))")
        }
        return (0..<width).map { values[$0] }
    }
}

@available(*, unavailable)
extension VectorCovariance: Sendable {}

@available(*, unavailable)
extension DoubleBuffer: Sendable {}
