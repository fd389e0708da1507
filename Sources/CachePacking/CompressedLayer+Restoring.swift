internal import ByteStorage
internal import CThinkKernels
public import KVCacheModel

extension CompressedLayer {
    /// Restores keys and values of a range of tokens.
    ///
    /// - Parameters:
    ///   - tokens: a range of the layer's tokens.
    ///   - elementType: the type to restore to; the cache's own restores full-precision parts bit for bit.
    /// - Returns: keys and values `[kvHeads, tokens, headDimension]` without gaps, in memory of their own.
    /// - Throws: `CodecError` if there is no memory for them.
    public func decompress(tokens: Range<Int>, as elementType: ElementType) throws(CodecError) -> KVCacheLayer {
        let parts = try CachePart.allCases.map { part throws(CodecError) in
            let headBytes = tokens.count * shape.headDimension * elementType.byteCount
            let buffer = try emptyBuffer(byteCount: shape.kvHeads * headBytes)
            for head in 0..<shape.kvHeads {
                unsafe buffer.withUnsafeMutableBytes { bytes in
                    guard let base = bytes.baseAddress else { return }
                    unsafe decompress(part, head: head, tokens: tokens, as: elementType, to: base + head * headBytes)
                }
            }
            return KVTensor(
                bytes: buffer.shared,
                elementType: elementType,
                heads: shape.kvHeads,
                tokens: tokens.count,
                headDimension: shape.headDimension
            )
        }
        return KVCacheLayer(keys: parts[0], values: parts[1])
    }

    /// Restores keys or values of one head into memory of the caller's.
    ///
    /// - Parameters:
    ///   - tokens: a range of the layer's tokens.
    ///   - elementType: the type to restore to.
    ///   - destination: at least `tokens.count * headDimension` elements, row after row.
    public func decompress(
        _ part: CachePart,
        head: Int,
        tokens: Range<Int>,
        as elementType: ElementType,
        into destination: inout MutableRawSpan
    ) {
        let byteCount = tokens.count * shape.headDimension * elementType.byteCount
        precondition(destination.byteCount >= byteCount, "the destination is too short")
        unsafe destination.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return }
            unsafe decompress(part, head: head, tokens: tokens, as: elementType, to: base)
        }
    }

    package func decompress(
        _ part: CachePart,
        head: Int,
        tokens: Range<Int>,
        as elementType: ElementType,
        to destination: UnsafeMutableRawPointer
    ) {
        precondition(tokens.lowerBound >= 0 && tokens.upperBound <= tokenCount, "tokens outside of the cache")
        let rowBytes = shape.headDimension * elementType.byteCount
        var token = tokens.lowerBound
        while token < tokens.upperBound {
            let rows = unsafe tck_mutable_rows(
                bytes: destination + (token - tokens.lowerBound) * rowBytes,
                token_stride: rowBytes,
                type: elementType.kernelType
            )
            let end: Int
            if token >= blockTokenCount {
                end = tokens.upperBound
                unsafe restoreWindow(part, head: head, from: token, count: end - token, into: rows)
            } else {
                let block = token / shape.blockLength
                end = min((block + 1) * shape.blockLength, tokens.upperBound)
                unsafe restore(part, block: block, head: head, tokens: token..<end, into: rows)
            }
            token = end
        }
    }

    private func restoreWindow(
        _ part: CachePart,
        head: Int,
        from token: Int,
        count: Int,
        into rows: tck_mutable_rows
    ) {
        guard let source = window[part] else { return }
        unsafe source.withRows(head: head, from: token - blockTokenCount) { stored in
            unsafe BlockCoder.copyRows(stored, count: count, headDimension: shape.headDimension, to: rows)
        }
    }

    private func restore(
        _ part: CachePart,
        block: Int,
        head: Int,
        tokens: Range<Int>,
        into rows: tck_mutable_rows
    ) {
        let coder = coders[head]
        func unpack(into rows: tck_mutable_rows) {
            unsafe self.block(block, head: head).withUnsafeBytes { bytes in
                guard let base = bytes.baseAddress else { return }
                switch part {
                case .keys: unsafe coder.unpackKeys(of: base, into: rows)
                case .values: unsafe coder.unpackValues(of: base, into: rows)
                }
            }
        }
        if tokens.count == shape.blockLength {
            unsafe unpack(into: rows)
            return
        }
        // Kernels restore whole blocks; the first and last of a range may be wanted in part.
        let byteCount = unsafe shape.blockLength * rows.token_stride
        unsafe withUnsafeTemporaryAllocation(byteCount: byteCount, alignment: AlignedBuffer.alignment) { scratch in
            guard let base = scratch.baseAddress, let to = unsafe rows.bytes else { return }
            unsafe unpack(into: tck_mutable_rows(bytes: base, token_stride: rows.token_stride, type: rows.type))
            unsafe to.copyMemory(
                from: base + (tokens.lowerBound % shape.blockLength) * rows.token_stride,
                byteCount: tokens.count * rows.token_stride
            )
        }
    }

    /// Keeps the first `count` tokens.
    ///
    /// Whole blocks stay as they are. Tokens of a block that is cut return to the window as they are restored, with
    /// the stand-ins of pruned channels, so appending goes on from there.
    ///
    /// - Throws: `CodecError` if there is no memory for these; nothing is dropped then.
    public mutating func truncate(to count: Int) throws(CodecError) {
        precondition(count >= 0 && count <= tokenCount, "a cache is truncated to some of its tokens")
        guard count < blockTokenCount else {
            window.truncate(to: count - blockTokenCount)
            return
        }
        let wholeBlocks = count / shape.blockLength
        let cut = try decompress(tokens: wholeBlocks * shape.blockLength..<count, as: shape.elementType)
        blockCount = wholeBlocks
        slabs.removeLast(slabs.count - chunkCount)
        window = ResidualWindow(shape: shape, layer: cut)
    }
}
