internal import ByteStorage
internal import CThinkKernels
internal import ComputeRuntime
internal import KVCacheModel

/// A matrix of weights where it lies in the file: `[rows, columns]`, columns side by side, of its own type.
struct WeightMatrix: Sendable {
    let bytes: SharedBytes
    let elementType: ElementType
    let rows: Int
    let columns: Int

    var rowBytes: Int { columns * elementType.byteCount }

    /// Lends rows from `row` on.
    func withRows<Result>(from row: Int, _ body: (tck_rows) -> Result) -> Result {
        unsafe bytes.withUnsafeBytes { buffer in
            let start = unsafe buffer.baseAddress.map { unsafe $0 + row * rowBytes }
            return unsafe body(tck_rows(bytes: start, token_stride: rowBytes, type: elementType.kernelType))
        }
    }

    /// Converts `count` rows to float32, row after row.
    func widen(from row: Int, count: Int, into destination: UnsafeMutablePointer<Float>) {
        precondition(row >= 0 && row + count <= rows, "rows outside of the matrix")
        unsafe withRows(from: row) { source in
            guard let start = unsafe source.bytes else { return }
            unsafe Kernels.best.widen(source.type, start, count * columns, destination)
        }
    }
}

/// A linear map, `x W^T + b`.
struct Linear: Sendable {
    let weights: WeightMatrix
    let bias: [Float]?
}
