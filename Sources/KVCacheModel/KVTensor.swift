public import ByteStorage
package import CThinkKernels
internal import ComputeRuntime

/// Keys, values or queries of one layer where they lie: `[heads, tokens, headDimension]`, channels side by side.
///
/// The bytes need no alignment.
public struct KVTensor: Sendable {
    public let bytes: SharedBytes
    public let elementType: ElementType
    public let heads: Int
    public let tokens: Int
    public let headDimension: Int
    /// Bytes from one head to the next.
    public let headStride: Int
    /// Bytes from one token to the next.
    public let tokenStride: Int

    /// A view of `bytes`, head after head and token after token without gaps unless strides are given.
    ///
    /// The bytes must reach to the last value; other lengths are a programming error.
    public init(
        bytes: SharedBytes,
        elementType: ElementType,
        heads: Int,
        tokens: Int,
        headDimension: Int,
        headStride: Int? = nil,
        tokenStride: Int? = nil
    ) {
        let rowBytes = headDimension * elementType.byteCount
        self.bytes = bytes
        self.elementType = elementType
        self.heads = heads
        self.tokens = tokens
        self.headDimension = headDimension
        self.tokenStride = tokenStride ?? rowBytes
        self.headStride = headStride ?? tokens * self.tokenStride
        precondition(heads >= 0 && tokens >= 0 && headDimension >= 0, "a tensor has no negative sizes")
        precondition(self.tokenStride >= rowBytes && self.headStride >= 0, "strides must not overlap rows")
        let end = (heads - 1) * self.headStride + max(tokens - 1, 0) * self.tokenStride + rowBytes
        precondition(heads == 0 || tokens == 0 || end <= bytes.count, "the bytes end before the tensor does")
    }

    /// A tensor of no heads.
    static func empty(_ elementType: ElementType) -> KVTensor {
        KVTensor(bytes: SharedBytes([]), elementType: elementType, heads: 0, tokens: 0, headDimension: 0)
    }

    /// Type and shape, for messages.
    var shapeText: String { "\(elementType.name) \([heads, tokens, headDimension])" }

    /// The same values of fewer tokens.
    public subscript(tokens range: Range<Int>) -> KVTensor {
        precondition(range.lowerBound >= 0 && range.upperBound <= tokens, "tokens outside of the tensor")
        let start = range.lowerBound * tokenStride
        return KVTensor(
            bytes: bytes[min(start, bytes.count)..<bytes.count],
            elementType: elementType,
            heads: heads,
            tokens: range.count,
            headDimension: headDimension,
            headStride: headStride,
            tokenStride: tokenStride
        )
    }

    /// Some rows of each head, copied: `[heads, rows, headDimension]`.
    ///
    /// - Parameter rows: which of each head, as many of each.
    func keeping(_ rows: [[Int]]) throws(MemoryError) -> KVTensor {
        let count = rows.first?.count ?? 0
        precondition(rows.count == heads && rows.allSatisfy { $0.count == count }, "every head keeps as many rows")
        let rowBytes = headDimension * elementType.byteCount
        let kept = try SharedBytes(byteCount: heads * count * rowBytes) { copy in
            unsafe copy.withUnsafeMutableBytes { copy in
                guard let base = copy.baseAddress else { return }
                for (head, list) in rows.enumerated() {
                    for (place, row) in list.enumerated() {
                        precondition(row >= 0 && row < tokens, "rows outside of the tensor")
                        unsafe withRows(head: head, from: row) { rows in
                            guard rowBytes > 0, let start = unsafe rows.bytes else { return }
                            unsafe (base + (head * count + place) * rowBytes).copyMemory(
                                from: start,
                                byteCount: rowBytes
                            )
                        }
                    }
                }
            }
        }
        return KVTensor(
            bytes: kept,
            elementType: elementType,
            heads: heads,
            tokens: count,
            headDimension: headDimension
        )
    }

    /// Bytes that the values take, without gaps.
    public var byteCount: Int { heads * tokens * headDimension * elementType.byteCount }

    /// The values' bytes in order, in one piece or, where heads lie apart, one for each head.
    ///
    /// Rows of a head must lie side by side.
    package var contiguousPieces: [SharedBytes] {
        let headBytes = tokens * headDimension * elementType.byteCount
        precondition(tokens <= 1 || tokenStride * tokens == headBytes, "rows must lie side by side")
        if headStride == headBytes || heads == 1 { return [bytes[0..<heads * headBytes]] }
        return (0..<heads).map { bytes[$0 * headStride..<$0 * headStride + headBytes] }
    }

    /// Lends the rows of a head from `token` on.
    package func withRows<Result, Failure: Error>(
        head: Int,
        from token: Int = 0,
        _ body: (tck_rows) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        precondition(head >= 0 && head < heads && token >= 0 && token <= tokens, "rows outside of the tensor")
        return unsafe try bytes.withUnsafeBytes { (buffer) throws(Failure) in
            let start = unsafe buffer.baseAddress.map { unsafe $0 + head * headStride + token * tokenStride }
            return unsafe try body(
                tck_rows(bytes: start, token_stride: tokenStride, type: elementType.kernelType)
            )
        }
    }

    /// Converts `count` rows of a head to float32, row after row.
    package func widenRows(head: Int, from token: Int, count: Int, into destination: UnsafeMutablePointer<Float>) {
        precondition(token + count <= tokens, "rows outside of the tensor")
        unsafe withRows(head: head, from: token) { rows in
            guard let start = unsafe rows.bytes else { return }
            for row in 0..<count {
                unsafe Kernels.best.widen(
                    rows.type,
                    start + row * tokenStride,
                    headDimension,
                    destination + row * headDimension
                )
            }
        }
    }
}
