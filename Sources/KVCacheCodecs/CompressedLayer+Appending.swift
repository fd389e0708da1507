internal import ByteStorage
internal import CThinkKernels
public import KVCacheModel

/// What an append will do: how many blocks leave window and new tokens together.
package struct AppendStep: Sendable {
    let firstBlock: Int
    let newBlocks: Int
    let windowCount: Int
    let newTokens: Int
}

extension CompressedLayer {
    /// Appends tokens: whole blocks of the oldest leave the window, which keeps at least `residualWindow` tokens.
    ///
    /// The bytes are the same whether tokens come one by one or all at once. On an error nothing is appended.
    ///
    /// - Parameters:
    ///   - keys: `[kvHeads, tokens, headDimension]`, after rotary embedding, of the cache's element type.
    ///   - values: of the same shape.
    /// - Throws: `CodecError` if the shapes don't fit or a number can't be quantized.
    public mutating func append(keys: KVTensor, values: KVTensor) throws(CodecError) {
        let step = try beginAppend(keys: keys, values: values)
        for head in 0..<shape.kvHeads {
            do {
                try packBlocks(of: step, head: head, keys: keys, values: values)
            } catch {
                abandonAppend()
                throw error
            }
        }
        finishAppend(step, keys: keys, values: values)
    }

    /// Checks what is appended and makes room for the blocks that it fills.
    package mutating func beginAppend(keys: KVTensor, values: KVTensor) throws(CodecError) -> AppendStep {
        for (name, tensor) in [("keys", keys), ("values", values)] {
            guard tensor.heads == shape.kvHeads, tensor.headDimension == shape.headDimension,
                tensor.elementType == shape.elementType, tensor.tokens == keys.tokens
            else {
                throw CodecError(
                    .shapeMismatch,
                    layer: index,
                    "\(name) of \(tensor.heads) heads, \(tensor.tokens) tokens, dimension \(tensor.headDimension), "
                        + "\(tensor.elementType.name) don't fit a cache of \(shape.kvHeads) heads, dimension "
                        + "\(shape.headDimension), \(shape.elementType.name)"
                )
            }
        }
        let pending = window.count + keys.tokens
        let step = AppendStep(
            firstBlock: blockCount,
            newBlocks: max(pending - shape.residualWindow, 0) / shape.blockLength,
            windowCount: window.count,
            newTokens: keys.tokens
        )
        makeRoom(forBlocks: blockCount + step.newBlocks)
        return step
    }

    /// Packs the step's blocks of one head. Different heads may be packed at the same time.
    ///
    /// - Throws: `CodecError` naming the first number that can't be quantized.
    package func packBlocks(
        of step: AppendStep,
        head: Int,
        keys: KVTensor,
        values: KVTensor
    ) throws(CodecError) {
        let coder = coders[head]
        for number in 0..<step.newBlocks {
            let start = number * shape.blockLength
            let packed =
                start >= step.windowCount
                ? pack(
                    block: step.firstBlock + number,
                    head: head,
                    keys: keys,
                    values: values,
                    from: start - step.windowCount
                )
                : packMixed(block: step.firstBlock + number, head: head, keys: keys, values: values, from: start)
            if !packed { throw unsupportedValue(head: head, keys: keys, values: values) }
        }
        // What stays in the window will be quantized one day: refuse it now, when its source is known.
        let windowStart = max(step.newBlocks * shape.blockLength - step.windowCount, 0)
        guard coder.isQuantized else { return }
        if let error = unsupportedValue(head: head, keys: keys, values: values, tokens: windowStart..<keys.tokens) {
            throw error
        }
    }

    /// Moves the rest of the tokens into the window.
    package mutating func finishAppend(_ step: AppendStep, keys: KVTensor, values: KVTensor) {
        blockCount = step.firstBlock + step.newBlocks
        window.append(keys: keys, values: values, dropping: step.newBlocks * shape.blockLength)
    }

    /// Gives back the room that `beginAppend` made.
    package mutating func abandonAppend() {
        slabs.removeLast(slabs.count - chunkCount)
    }

    // MARK: -

    private mutating func makeRoom(forBlocks count: Int) {
        guard count > blockCount else { return }
        for chunk in blockCount / shape.blocksPerPage..<shape.chunkCount(blockCount: count) {
            let needed = shape.blocks(ofChunk: chunk, blockCount: count)
            if chunk < slabs.count {
                if slabs[chunk].capacity >= needed && slabs[chunk].isWritable() { continue }
                slabs[chunk] = grown(slabs[chunk], filled: shape.blocks(ofChunk: chunk, blockCount: blockCount))
            } else {
                // A cache's last slab is as long as it must be; only one that grows gets room for full pages.
                let capacity = blockCount == 0 ? needed : shape.blocksPerPage
                slabs.append(Slab(blockBytes: blockBytes, capacity: capacity))
            }
        }
    }

    /// A copy of a slab with room for full pages.
    private func grown(_ slab: Slab, filled: Int) -> Slab {
        let result = Slab(blockBytes: blockBytes, capacity: shape.blocksPerPage)
        unsafe result.withUnsafeMutableBytes { destination in
            unsafe slab.bytes.withUnsafeBytes { source in
                guard let to = destination.baseAddress, let from = source.baseAddress else { return }
                for head in 0..<shape.kvHeads {
                    unsafe (to + result.capacity * pageOffsets[head]).copyMemory(
                        from: from + slab.capacity * pageOffsets[head],
                        byteCount: filled * coders[head].layout.byteCount
                    )
                }
            }
        }
        return result
    }

    private func pack(block: Int, head: Int, keys: KVTensor, values: KVTensor, from token: Int) -> Bool {
        let slab = slabs[block / shape.blocksPerPage]
        return unsafe slab.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return false }
            return unsafe keys.withRows(head: head, from: token) { keyRows in
                unsafe values.withRows(head: head, from: token) { valueRows in
                    unsafe coders[head].pack(
                        keys: keyRows,
                        values: valueRows,
                        into: base + blockOffset(block, head: head, capacity: slab.capacity)
                    )
                }
            }
        }
    }

    /// Packs a block that begins in the window and, perhaps, ends in the new tokens.
    private func packMixed(block: Int, head: Int, keys: KVTensor, values: KVTensor, from token: Int) -> Bool {
        let joined = [(window.keys, keys), (window.values, values)].map { old, new in
            let scratch = AlignedBuffer(byteCount: shape.blockLength * shape.rowBytes)
            let fromWindow = min(window.count - token, shape.blockLength)
            unsafe scratch.withUnsafeMutableBytes { bytes in
                guard let base = bytes.baseAddress else { return }
                func copy(_ tensor: KVTensor, from row: Int, count: Int, to offset: Int) {
                    unsafe tensor.withRows(head: head, from: row) { rows in
                        unsafe BlockCoder.copyRows(
                            rows,
                            count: count,
                            headDimension: shape.headDimension,
                            to: tck_mutable_rows(
                                bytes: base + offset * shape.rowBytes,
                                token_stride: shape.rowBytes,
                                type: shape.elementType.kernelType
                            )
                        )
                    }
                }
                if let old { copy(old, from: token, count: fromWindow, to: 0) }
                copy(new, from: 0, count: shape.blockLength - fromWindow, to: fromWindow)
            }
            return scratch
        }
        let tensors = joined.map { scratch in
            KVTensor(
                bytes: scratch.shared,
                elementType: shape.elementType,
                heads: 1,
                tokens: shape.blockLength,
                headDimension: shape.headDimension
            )
        }
        let slab = slabs[block / shape.blocksPerPage]
        return unsafe slab.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return false }
            return unsafe tensors[0].withRows(head: 0) { keyRows in
                unsafe tensors[1].withRows(head: 0) { valueRows in
                    unsafe coders[head].pack(
                        keys: keyRows,
                        values: valueRows,
                        into: base + blockOffset(block, head: head, capacity: slab.capacity)
                    )
                }
            }
        }
    }

    private func unsupportedValue(
        head: Int,
        keys: KVTensor,
        values: KVTensor,
        tokens: Range<Int>
    ) -> CodecError? {
        for (name, tensor) in [("key", keys), ("value", values)] {
            let found = UnsupportedValue.first(
                in: tensor,
                head: head,
                tokens: tokens,
                name: name,
                limit: BlockCoder.maximumMagnitude
            )
            if let found { return found.error(layer: index, firstToken: tokenCount) }
        }
        return nil
    }

    private func unsupportedValue(head: Int, keys: KVTensor, values: KVTensor) -> CodecError {
        unsupportedValue(head: head, keys: keys, values: values, tokens: 0..<keys.tokens)
            ?? CodecError(.unsupportedValue, layer: index, head: head, "a number can't be quantized")
    }
}
