package import KVCacheModel

extension CompressedLayer {
    /// The largest magnitude that float16 doesn't round to infinity.
    private static let largestFloat16: Float = Float(65520).nextDown

    /// Checks that all numbers are finite, as those of a sound cache are.
    ///
    /// - Throws: `CodecError` naming the first number that is not.
    public func checkFinite() throws(CodecError) {
        for row in stride(from: 0, to: rowCount, by: BlockShape.pageTokens) {
            let rows = row..<min(row + BlockShape.pageTokens, rowCount)
            guard let (part, found) = try firstNumber(of: rows, where: { !$0.isFinite }) else { continue }
            throw unsupported(
                found,
                rows: rows,
                "\(part) hold \(found.value), which is no number to compute with; make the cache anew"
            )
        }
    }

    /// Checks that restoring to a type makes no infinities of finite numbers.
    ///
    /// - Throws: `CodecError` naming the first number that `elementType` can't say.
    package func checkRange(
        rows: Range<Int>,
        as elementType: ElementType
    ) throws(CodecError) {
        guard elementType == .float16, shape.elementType != .float16,
            let (part, found) = try firstNumber(
                of: rows,
                where: { $0.isFinite && $0.magnitude > Self.largestFloat16 }
            )
        else { return }
        throw unsupported(found, rows: rows, "\(part) hold \(found.value), which F16 can't say; restore to BF16 or F32")
    }

    /// The first number that fits a condition, head by head.
    private func firstNumber(
        of rows: Range<Int>,
        where isUnsupported: (Float) -> Bool
    ) throws(CodecError) -> (CachePart, UnsupportedValue)? {
        let restored = try decompress(rows: rows, as: .float32)
        for part in CachePart.allCases {
            for head in 0..<geometry.kvHeads {
                let found = UnsupportedValue.first(in: restored[part], head: head, name: "\(part)") {
                    !isUnsupported($0)
                }
                if let found { return (part, found) }
            }
        }
        return nil
    }

    private func unsupported(_ found: UnsupportedValue, rows: Range<Int>, _ message: String) -> CodecError {
        CodecError(
            .unsupportedValue,
            layer: index,
            head: found.head,
            // Lists are the whole layer's, also where this is a piece of it that begins at a later place.
            token: held.token(atPlace: extent.first + rows.lowerBound + found.row, head: found.head),
            channel: found.channel,
            message
        )
    }
}
