internal import ByteStorage
internal import CThinkKernels
internal import ComputeRuntime

/// A matrix of weights where it lies in the file: `[rows, columns]`, columns side by side, of its own type.
///
/// Whoever makes one sees to it that rows are whole blocks of the type, and that `bytes` has them all.
struct WeightMatrix: Sendable {
    /// Where a matrix's rows lie in the file.
    enum RowOrder: Sendable, Equatable {
        /// One after another.
        case plain
        /// The halves of each head's rows take turns: of a head of dimension D, the row at `2 j + i` is the matrix's row
        /// `i D / 2 + j`. Converters to GGUF do this to queries and keys of some architectures, whose rotary embedding
        /// then turns neighbours.
        case interleavedHalves(headDimension: Int)
    }

    let bytes: SharedBytes
    let type: WeightType
    let rows: Int
    let columns: Int
    let rowOrder: RowOrder

    init(bytes: SharedBytes, type: WeightType, rows: Int, columns: Int, rowOrder: RowOrder = .plain) {
        precondition(columns.isMultiple(of: type.blockLength), "rows must be whole blocks")
        precondition(bytes.count >= rows * type.byteCount(of: columns), "the matrix is not whole")
        if case .interleavedHalves(let dimension) = rowOrder {
            precondition(
                dimension > 0 && dimension.isMultiple(of: 2) && rows.isMultiple(of: dimension),
                "heads are cut"
            )
        }
        self.bytes = bytes
        self.type = type
        self.rows = rows
        self.columns = columns
        self.rowOrder = rowOrder
    }

    private var rowBytes: Int { type.byteCount(of: columns) }

    /// Lends some rows, in runs that lie at equal distances: calls `body` with each run's numbers in the matrix and where
    /// it begins.
    func forEachRun(in range: Range<Int>, _ body: (Range<Int>, tck_weights) -> Void) {
        precondition(range.lowerBound >= 0 && range.upperBound <= rows, "rows outside of the matrix")
        guard !range.isEmpty else { return }
        unsafe bytes.withUnsafeBytes { buffer in
            guard let base = buffer.baseAddress else { return }
            var start = range.lowerBound
            while start < range.upperBound {
                let (place, step, end) = run(from: start)
                let rows = start..<min(end, range.upperBound)
                unsafe body(
                    rows,
                    tck_weights(bytes: base + place * rowBytes, row_stride: step * rowBytes, type: type.kernelType)
                )
                start = rows.upperBound
            }
        }
    }

    /// Where in the file a row is, how far apart from there rows are, and which row follows those of which this holds.
    private func run(from row: Int) -> (place: Int, step: Int, end: Int) {
        guard case .interleavedHalves(let dimension) = rowOrder else { return (row, 1, rows) }
        let half = dimension / 2
        let (head, index) = row.quotientAndRemainder(dividingBy: dimension)
        let (part, pair) = index.quotientAndRemainder(dividingBy: half)
        return (head * dimension + 2 * pair + part, 2, row - pair + half)
    }

    /// Converts `count` rows to float32, row after row.
    func widen(from row: Int, count: Int, into destination: UnsafeMutablePointer<Float>) {
        let kernels = unsafe Kernels.best
        unsafe forEachRun(in: row..<row + count) { rows, source in
            unsafe widen(rows.count, of: source, with: kernels, into: destination + (rows.lowerBound - row) * columns)
        }
    }

    private func widen(
        _ count: Int,
        of source: tck_weights,
        with kernels: tck_kernels,
        into destination: UnsafeMutablePointer<Float>
    ) {
        guard let start = unsafe source.bytes else { return }
        if unsafe source.row_stride == rowBytes {
            unsafe kernels.widen_weights(source.type, start, count * columns, destination)
        } else {
            for index in 0..<count {
                unsafe kernels.widen_weights(
                    source.type,
                    start + index * source.row_stride,
                    columns,
                    destination + index * columns
                )
            }
        }
    }
}

/// A linear map, `x W^T + b`.
struct Linear: Sendable {
    let weights: WeightMatrix
    /// In the order of the matrix's rows.
    let bias: [Float]?
}
