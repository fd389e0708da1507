internal import COpenBLAS
internal import Foundation

/// Attention of a few rows of queries over keys and values that come tile by tile, in float32.
///
/// The scores of one tile are kept to be compared. Not a fast kernel: the reference that codecs are measured with.
struct OnlineAttention {
    /// How many of a tile's tokens each row of queries sees.
    typealias VisibleCounts = [Int]

    private let rows: Int
    private let headDimension: Int
    private let queries: [Float]
    private var maxima: [Float]
    private var sums: [Float]
    private var output: [Float]
    private var probabilities: [Float]
    /// `q · k / sqrt(headDimension)` of the last tile: `[rows, tokens]`.
    private(set) var scores: [Float]

    /// - Parameter queries: `[rows, headDimension]`.
    init(queries: [Float], headDimension: Int, tileTokens: Int) {
        rows = queries.count / headDimension
        self.headDimension = headDimension
        self.queries = queries
        maxima = [Float](repeating: -.infinity, count: rows)
        sums = [Float](repeating: 0, count: rows)
        output = [Float](repeating: 0, count: queries.count)
        scores = [Float](repeating: 0, count: rows * tileTokens)
        probabilities = scores
    }

    /// Adds a tile of `count` tokens: keys and values `[count, headDimension]`.
    mutating func add(keys: [Float], values: [Float], count: Int, visible: VisibleCounts) {
        let scale = 1 / Float(headDimension).squareRoot()
        unsafe cblas_sgemm(
            CblasRowMajor,
            CblasNoTrans,
            CblasTrans,
            blasint(rows),
            blasint(count),
            blasint(headDimension),
            scale,
            queries,
            blasint(headDimension),
            keys,
            blasint(headDimension),
            0,
            &scores,
            blasint(count)
        )
        for row in 0..<rows {
            let start = row * count
            var maximum = maxima[row]
            for index in start..<start + visible[row] { maximum = max(maximum, scores[index]) }
            guard maximum > -.infinity else {
                for index in start..<start + count { probabilities[index] = 0 }
                continue
            }
            let correction = exp(maxima[row] - maximum)
            var sum: Float = 0
            for index in start..<start + visible[row] {
                probabilities[index] = exp(scores[index] - maximum)
                sum += probabilities[index]
            }
            for index in start + visible[row]..<start + count { probabilities[index] = 0 }
            for index in row * headDimension..<(row + 1) * headDimension { output[index] *= correction }
            sums[row] = sums[row] * correction + sum
            maxima[row] = maximum
        }
        unsafe cblas_sgemm(
            CblasRowMajor,
            CblasNoTrans,
            CblasNoTrans,
            blasint(rows),
            blasint(headDimension),
            blasint(count),
            1,
            probabilities,
            blasint(count),
            values,
            blasint(headDimension),
            1,
            &output,
            blasint(headDimension)
        )
    }

    /// The attention output of all rows: `[rows, headDimension]`.
    var result: [Float] {
        output.enumerated().map { $1 / sums[$0 / headDimension] }
    }

    /// Lets BLAS work on the calling thread only, since heads are already spread over the processors.
    ///
    /// - Returns: the number of threads before, for `restoreThreads`.
    static func useOneThread() -> Int32 {
        defer { openblas_set_num_threads(1) }
        return openblas_get_num_threads()
    }

    static func restoreThreads(_ count: Int32) { openblas_set_num_threads(count) }
}
