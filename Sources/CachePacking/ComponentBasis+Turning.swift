internal import CThinkKernels
internal import ComputeRuntime
package import KVCacheModel

extension ComponentBasis {
    /// What each channel, less its mean, is multiplied by for each component: `[channelCount][componentCount]`.
    ///
    /// Without the weights it is the inverse of the scaled rows, or where there are fewer components than channels their
    /// pseudo-inverse: the components whose restored channels are nearest to the channels. Two of Newton's steps lead to
    /// it from the transpose, which it is but for rounding. All products are summed up in one order, so that the same rows
    /// give the same matrix everywhere: Formats/calibrated.md, "Components"; Formats/archive.md, "Writing".
    ///
    /// - Parameter rows: the matrix times the components' scales, `[componentCount][channelCount]`.
    package static func turningMatrix(of rows: [Float], weights: [Float]) -> [Float] {
        let channels = weights.count
        let components = rows.count / channels
        let transpose = transposed(rows, columns: channels)
        var inverse = transpose
        for _ in 0..<2 {
            // [components][components]: what is left of components that are restored and turned again.
            let product = multiply(transposed: transpose, inverse, inner: channels)
            // [channels][components]
            let correction = multiply(transposed: transposed(inverse, columns: components), product, inner: components)
            for index in inverse.indices { inverse[index] = 2 * inverse[index] - correction[index] }
        }
        for index in inverse.indices { inverse[index] *= weights[index / components] }
        return inverse
    }

    private static func transposed(_ matrix: [Float], columns: Int) -> [Float] {
        let rows = matrix.count / columns
        return unsafe [Float](unsafeUninitializedCapacity: matrix.count) { result, count in
            for column in 0..<columns {
                for row in 0..<rows { unsafe result[column * rows + row] = matrix[row * columns + column] }
            }
            count = matrix.count
        }
    }

    /// The products of columns: `left` is `[inner][rows]`, which is how large matrices are multiplied fastest, `right`
    /// `[inner][columns]`, the result `[rows][columns]`.
    private static func multiply(transposed left: [Float], _ right: [Float], inner: Int) -> [Float] {
        let (rows, columns) = (left.count / inner, right.count / inner)
        return unsafe [Float](unsafeUninitializedCapacity: rows * columns) { result, count in
            unsafe Kernels.best.multiply_in_order(
                left,
                1,
                rows,
                rows,
                right,
                columns,
                inner,
                columns,
                result.baseAddress,
                columns
            )
            count = rows * columns
        }
    }
}
