internal import ByteStorage
internal import CThinkKernels
public import KVCacheModel

extension CompressedLayer {
    /// Restores keys and values of some rows.
    ///
    /// - Parameters:
    ///   - rows: a range of the layer's rows, from 0; of a layer that holds all tokens, these are the tokens.
    ///   - elementType: the type to restore to; the cache's own restores full-precision parts bit for bit.
    /// - Returns: keys and values `[kvHeads, rows, dimension]` without gaps, in memory of their own; of all rows also which
    ///   tokens they are of, and the layer's state.
    /// - Throws: `CodecError` if there is no memory for them.
    public func decompress(rows: Range<Int>, as elementType: ElementType) throws(CodecError) -> KVCacheLayer {
        let parts = try CachePart.allCases.map { part throws(CodecError) in
            let headBytes = rows.count * geometry.dimension(part) * elementType.byteCount
            let bytes = unsafe try filledRows(byteCount: geometry.kvHeads * headBytes) { base in
                for head in 0..<geometry.kvHeads {
                    unsafe decompress(part, head: head, rows: rows, as: elementType, to: base + head * headBytes)
                }
            }
            return KVTensor(
                bytes: bytes,
                elementType: elementType,
                heads: geometry.kvHeads,
                tokens: rows.count,
                headDimension: geometry.dimension(part)
            )
        }
        let isWhole = rows == 0..<rowCount
        return KVCacheLayer(
            keys: parts[0],
            values: parts[1],
            held: isWhole ? held : .all,
            state: isWhole ? state : []
        )
    }

    /// Restores keys or values of one head into memory of the caller's.
    ///
    /// - Parameters:
    ///   - rows: a range of the layer's rows, from 0.
    ///   - elementType: the type to restore to.
    ///   - destination: at least `rows.count * dimension` elements, row after row.
    public func decompress(
        _ part: CachePart,
        head: Int,
        rows: Range<Int>,
        as elementType: ElementType,
        into destination: inout MutableRawSpan
    ) {
        let byteCount = rows.count * geometry.dimension(part) * elementType.byteCount
        precondition(destination.byteCount >= byteCount, "the destination is too short")
        unsafe destination.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return }
            unsafe decompress(part, head: head, rows: rows, as: elementType, to: base)
        }
    }

    package func decompress(
        _ part: CachePart,
        head: Int,
        rows: Range<Int>,
        as elementType: ElementType,
        to destination: UnsafeMutableRawPointer
    ) {
        precondition(rows.lowerBound >= 0 && rows.upperBound <= rowCount, "rows outside of the layer")
        let rowBytes = geometry.dimension(part) * elementType.byteCount
        guard rowBytes > 0 else { return }
        let places = rows.lowerBound + extent.first..<rows.upperBound + extent.first
        var place = places.lowerBound
        while place < places.upperBound {
            let to = unsafe tck_mutable_rows(
                bytes: destination + (place - places.lowerBound) * rowBytes,
                token_stride: rowBytes,
                type: elementType.kernelType
            )
            let end: Int
            if place >= extent.windowStart {
                end = places.upperBound
                unsafe copy(window[part], head: head, row: place - extent.windowStart, count: end - place, to: to)
            } else if place < sinks.count {
                end = min(sinks.count, places.upperBound)
                unsafe copy(sinks[part], head: head, row: place, count: end - place, to: to)
            } else {
                let block = place / shape.blockLength
                end = min((block + 1) * shape.blockLength, places.upperBound)
                unsafe restore(part, block: block, head: head, places: place..<end, into: to)
            }
            place = end
        }
    }

    private func copy(_ source: KVTensor?, head: Int, row: Int, count: Int, to rows: tck_mutable_rows) {
        guard let source else { return }
        unsafe source.withRows(head: head, from: row) { stored in
            unsafe BlockCoder.copyRows(stored, count: count, headDimension: source.headDimension, to: rows)
        }
    }

    private func restore(
        _ part: CachePart,
        block: Int,
        head: Int,
        places: Range<Int>,
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
        if places.count == shape.blockLength {
            unsafe unpack(into: rows)
            return
        }
        // Kernels restore whole blocks; of the first and the last of a range only a part may be wanted.
        let byteCount = unsafe shape.blockLength * rows.token_stride
        unsafe withUnsafeTemporaryAllocation(byteCount: byteCount, alignment: AlignedBuffer.alignment) { scratch in
            guard let base = scratch.baseAddress, let to = unsafe rows.bytes else { return }
            unsafe unpack(into: tck_mutable_rows(bytes: base, token_stride: rows.token_stride, type: rows.type))
            unsafe to.copyMemory(
                from: base + (places.lowerBound % shape.blockLength) * rows.token_stride,
                byteCount: places.count * rows.token_stride
            )
        }
    }

    /// Keeps the first `count` tokens.
    ///
    /// Whole blocks stay as they are. Tokens of a block that is cut return to the window as they are restored, with
    /// the stand-ins of pruned channels, so appending goes on from there.
    ///
    /// - Throws: `CodecError` if the layer doesn't hold all tokens, or there is no memory; nothing is dropped then.
    public mutating func truncate(to count: Int) throws(CodecError) {
        precondition(count >= 0 && count <= tokenCount, "a cache is truncated to some of its tokens")
        if count == tokenCount { return }
        if let wholeOnlyReason {
            throw CodecError(
                .partialCache,
                "\(wholeOnlyReason): such a cache can be reused whole only; compute the shorter prefix anew"
            )
        }
        tokenCount = count
        guard !geometry.isEmpty else { return }
        if count < extent.blockEnd {
            let blockEnd = count / shape.blockLength * shape.blockLength
            let cut = try decompress(rows: blockEnd..<count, as: shape.elementType)
            window = window.holding(cut.keys.tokens > 0 ? cut : nil)
            extent.blockEnd = blockEnd
            slabs.removeLast(slabs.count - extent.chunks.count)
            sinks.truncate(to: sinkRowCount(extent))
        } else {
            window.truncate(to: count - extent.blockEnd)
        }
        extent.end = count
    }
}
