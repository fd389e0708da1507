import COpenBLAS
import CThinkKernels
import PlainRead

/// Memory of matrices that is used in turns, so that each use finds in the caches nothing of its bytes.
final class ProductMemory {
    private let bytes: UnsafeMutableRawBufferPointer
    private let vector: [Float]
    private var outputs: [Float]
    private let kernels = tck_best_kernels().pointee
    private var next = 0

    private static let mostColumns = 1 << 16

    /// At least two of the largest matrices, so that these take turns too.
    init(byteCount: Int) {
        bytes = .allocate(byteCount: byteCount, alignment: 64)
        // Numbers, or scales and codes, of all types.
        let pattern: [UInt32] = [0x3C00_3C01, 0xBC12_BC34, 0x3D56_3C78, 0xBD9A_BCBC]
        for (index, at) in stride(from: 0, to: byteCount, by: 4).enumerated() {
            bytes.storeBytes(of: pattern[index & 3], toByteOffset: at, as: UInt32.self)
        }
        vector = (0..<Self.mostColumns).map { Float($0 % 13) - 6 }
        outputs = [Float](repeating: 0, count: Self.mostColumns)
    }

    deinit { bytes.deallocate() }

    func byteCount(of shape: ProductRound.Shape, type: tck_weight_type) -> Int {
        let block = tck_weight_block_of(type)
        return shape.count / block.length * block.bytes
    }

    func read(_ shape: ProductRound.Shape, type: tck_weight_type) {
        let matrix = nextMatrix(byteCount: byteCount(of: shape, type: type))
        outputs[0] = Float(plain_read(matrix, byteCount(of: shape, type: type)) & 1)
    }

    func multiply(_ shape: ProductRound.Shape, type: tck_weight_type) {
        let matrix = nextMatrix(byteCount: byteCount(of: shape, type: type))
        let stride = byteCount(of: shape, type: type) / shape.rows
        let rows = tck_weights(bytes: matrix, row_stride: stride, type: type)
        kernels.multiply_rows(rows, shape.rows, shape.columns, vector, &outputs)
    }

    func multiplyWithOpenBLAS(_ shape: ProductRound.Shape) {
        let matrix = nextMatrix(byteCount: byteCount(of: shape, type: TCK_WEIGHT_F32))
        cblas_sgemv(
            CblasRowMajor,
            CblasNoTrans,
            blasint(shape.rows),
            blasint(shape.columns),
            1,
            matrix.assumingMemoryBound(to: Float.self),
            blasint(shape.columns),
            vector,
            1,
            0,
            &outputs,
            1
        )
    }

    /// The next one, which begins where the last one ended or else at the front.
    private func nextMatrix(byteCount: Int) -> UnsafeRawPointer {
        if next + byteCount > bytes.count { next = 0 }
        defer { next += byteCount }
        return UnsafeRawPointer(bytes.baseAddress! + next)
    }
}
