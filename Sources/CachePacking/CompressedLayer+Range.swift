package import KVCacheModel

extension CompressedLayer {
    /// The largest magnitude that float16 doesn't round to infinity.
    private static let largestFloat16: Float = Float(65520).nextDown

    /// Checks that all numbers are finite, as those of a sound cache are.
    ///
    /// - Throws: `CodecError` naming the first number that is not.
    public func checkFinite() throws(CodecError) {
        for token in stride(from: 0, to: tokenCount, by: BlockShape.pageTokens) {
            let restored = try decompress(tokens: token..<min(token + BlockShape.pageTokens, tokenCount), as: .float32)
            for part in CachePart.allCases {
                for head in 0..<shape.kvHeads {
                    let found = UnsupportedValue.first(
                        in: restored[part],
                        head: head,
                        name: "\(part)",
                        limit: .greatestFiniteMagnitude
                    )
                    guard let found else { continue }
                    throw CodecError(
                        .unsupportedValue,
                        layer: index,
                        head: head,
                        token: token + found.token,
                        channel: found.channel,
                        "\(part) hold \(found.value), which is no number to compute with; make the cache anew"
                    )
                }
            }
        }
    }

    /// Checks that restoring to a type makes no infinities of finite numbers.
    ///
    /// - Parameter firstToken: which token of the cache the layer's first one is.
    /// - Throws: `CodecError` naming the first number that `elementType` can't say.
    package func checkRange(
        tokens: Range<Int>,
        as elementType: ElementType,
        firstToken: Int
    ) throws(CodecError) {
        guard elementType == .float16, shape.elementType != .float16 else { return }
        let restored = try decompress(tokens: tokens, as: .float32)
        for part in CachePart.allCases {
            for head in 0..<shape.kvHeads {
                let found = UnsupportedValue.first(
                    in: restored[part],
                    head: head,
                    name: "\(part)",
                    limit: Self.largestFloat16
                )
                guard let found, found.value.isFinite else { continue }
                throw CodecError(
                    .unsupportedValue,
                    layer: index,
                    head: head,
                    token: firstToken + tokens.lowerBound + found.token,
                    channel: found.channel,
                    "\(part) hold \(found.value), which F16 can't say; restore to BF16 or F32"
                )
            }
        }
    }
}
