internal import ByteStorage

/// Numbers in memory of their own, row after row.
///
/// Sendable because the decoder gives concurrent writers disjoint rows and lets nobody read before they are done.
@safe
final class FloatMatrix: Sendable {
    let rows: Int
    let columns: Int
    private let buffer: AlignedBuffer
    // Memory that lives as long as the buffer.
    private nonisolated(unsafe) let base: UnsafeMutablePointer<Float>

    /// A matrix of zeros.
    init(rows: Int, columns: Int) throws(MemoryError) {
        self.rows = rows
        self.columns = columns
        buffer = try AlignedBuffer(byteCount: rows * columns * MemoryLayout<Float>.size)
        let start = unsafe buffer.withUnsafeMutableBytes { $0.baseAddress }
        guard let start = unsafe start else { preconditionFailure("a buffer has memory") }
        unsafe base = start.assumingMemoryBound(to: Float.self)
    }

    /// The numbers of a row and those after it.
    @unsafe
    subscript(row: Int) -> UnsafeMutablePointer<Float> {
        precondition(row >= 0 && row <= rows, "there is no such row")
        return unsafe base + row * columns
    }

    /// The same numbers in memory of their own.
    func copy() throws(MemoryError) -> FloatMatrix {
        let copy = try FloatMatrix(rows: rows, columns: columns)
        unsafe copy[0].update(from: base, count: rows * columns)
        return copy
    }

    /// The bytes to read, which stay alive with the result; to be let go of before the numbers are written anew.
    @unsafe
    var shared: SharedBytes { unsafe buffer.shared }
}
