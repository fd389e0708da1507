internal import ByteStorage
internal import CThinkKernels
public import KVCacheModel

/// What an append will do: which tokens come, and how many blocks leave window and new tokens together.
package struct AppendStep: Sendable {
    let source: KVCacheLayer
    let firstBlock: Int
    let newBlocks: Int
    let windowCount: Int
}

extension CompressedLayer {
    /// Appends tokens: whole blocks of the oldest leave the window, which keeps at least `residualWindow` tokens.
    ///
    /// The bytes are the same whether tokens come one by one or all at once. On an error nothing is appended.
    ///
    /// - Parameters:
    ///   - keys: `[kvHeads, tokens, headDimension]`, after rotary embedding, of the cache's element type.
    ///   - values: of the same shape.
    /// - Throws: `CodecError` if the shapes don't fit, a number can't be quantized, or there is no memory.
    public mutating func append(keys: KVTensor, values: KVTensor) throws(CodecError) {
        let step = try beginAppend(KVCacheLayer(keys: keys, values: values))
        for head in 0..<shape.kvHeads {
            do {
                try packBlocks(of: step, head: head)
            } catch {
                abandonAppend()
                throw error
            }
        }
        do {
            try makeWindowRoom(for: step)
        } catch {
            abandonAppend()
            throw error
        }
        try finishAppend(step)
    }

    /// Checks what is appended and makes room for the blocks that it fills.
    package mutating func beginAppend(_ source: KVCacheLayer) throws(CodecError) -> AppendStep {
        for part in CachePart.allCases {
            let tensor = source[part]
            guard tensor.heads == shape.kvHeads, tensor.headDimension == shape.headDimension,
                tensor.elementType == shape.elementType, tensor.tokens == source.keys.tokens
            else {
                throw CodecError(
                    .shapeMismatch,
                    layer: index,
                    "\(part) of \(tensor.heads) heads, \(tensor.tokens) tokens, dimension \(tensor.headDimension), "
                        + "\(tensor.elementType.name) don't fit a cache of \(shape.kvHeads) heads, dimension "
                        + "\(shape.headDimension), \(shape.elementType.name)"
                )
            }
        }
        let pending = window.count + source.keys.tokens
        let step = AppendStep(
            source: source,
            firstBlock: blockCount,
            newBlocks: max(pending - shape.residualWindow, 0) / shape.blockLength,
            windowCount: window.count
        )
        do {
            try makeRoom(forBlocks: blockCount + step.newBlocks)
        } catch {
            abandonAppend()
            throw CodecError(error, layer: index)
        }
        return step
    }

    /// Packs the step's blocks of one head. Different heads may be packed at the same time.
    ///
    /// - Throws: `CodecError` naming the first number that can't be quantized.
    package func packBlocks(of step: AppendStep, head: Int) throws(CodecError) {
        for number in 0..<step.newBlocks {
            // Where the block begins among the window's tokens and the new ones after them.
            let start = number * shape.blockLength
            let block = step.firstBlock + number
            let packed =
                start >= step.windowCount
                ? pack(block, head: head, from: step.source, sourceHead: head, token: start - step.windowCount)
                : pack(
                    block,
                    head: head,
                    from: try joinedBlock(at: start, head: head, step: step),
                    sourceHead: 0,
                    token: 0
                )
            if !packed {
                throw unsupportedValue(in: step.source, head: head, tokens: 0..<step.source.keys.tokens)
                    ?? CodecError(.unsupportedValue, layer: index, head: head, "a number can't be quantized")
            }
        }
        // What stays in the window will be quantized one day: refuse it now, when its source is known.
        let windowStart = max(step.newBlocks * shape.blockLength - step.windowCount, 0)
        let staying = windowStart..<step.source.keys.tokens
        if let error = unsupportedValue(in: step.source, head: head, tokens: staying) { throw error }
    }

    /// Makes room in the window, so that `finishAppend` can't fail as long as nobody copies the layer.
    package mutating func makeWindowRoom(for step: AppendStep) throws(CodecError) {
        do {
            try window.makeRoom(for: step.source, dropping: step.newBlocks * shape.blockLength)
        } catch {
            throw CodecError(error, layer: index)
        }
    }

    /// Moves the rest of the tokens into the window.
    package mutating func finishAppend(_ step: AppendStep) throws(CodecError) {
        do {
            try window.append(step.source, dropping: step.newBlocks * shape.blockLength)
        } catch {
            throw CodecError(error, layer: index)
        }
        blockCount = step.firstBlock + step.newBlocks
    }

    /// Gives back the room that `beginAppend` made.
    package mutating func abandonAppend() {
        slabs.removeLast(slabs.count - chunkCount)
    }

    // MARK: -

    private mutating func makeRoom(forBlocks count: Int) throws(MemoryError) {
        guard count > blockCount else { return }
        for chunk in blockCount / shape.blocksPerPage..<shape.chunkCount(blockCount: count) {
            let needed = shape.blocks(ofChunk: chunk, blockCount: count)
            if chunk < slabs.count {
                if slabs[chunk].capacity >= needed && slabs[chunk].isWritable() { continue }
                slabs[chunk] = try grown(slabs[chunk], filled: shape.blocks(ofChunk: chunk, blockCount: blockCount))
            } else {
                // A cache's last slab is as long as it must be; only one that grows gets room for full pages.
                let capacity = blockCount == 0 ? needed : shape.blocksPerPage
                slabs.append(try Slab(blockBytes: blockBytes, capacity: capacity))
            }
        }
    }

    /// A copy of a slab with room for full pages.
    private func grown(_ slab: Slab, filled: Int) throws(MemoryError) -> Slab {
        let result = try Slab(blockBytes: blockBytes, capacity: shape.blocksPerPage)
        unsafe result.withUnsafeMutableBytes { destination in
            unsafe slab.bytes.withUnsafeBytes { source in
                guard let to = destination.baseAddress, let from = source.baseAddress else { return }
                for head in 0..<shape.kvHeads {
                    unsafe (to + result.capacity * pageOffsets[head]).copyMemory(
                        from: from + slab.capacity * pageOffsets[head],
                        byteCount: filled * coders[head].byteCount
                    )
                }
            }
        }
        return result
    }

    private func pack(_ block: Int, head: Int, from source: KVCacheLayer, sourceHead: Int, token: Int) -> Bool {
        let slab = slabs[block / shape.blocksPerPage]
        return unsafe slab.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return false }
            return unsafe source.keys.withRows(head: sourceHead, from: token) { keys in
                unsafe source.values.withRows(head: sourceHead, from: token) { values in
                    unsafe coders[head].pack(
                        keys: keys,
                        values: values,
                        into: base + blockOffset(block, head: head, capacity: slab.capacity)
                    )
                }
            }
        }
    }

    /// The tokens of a block of one head that begins in the window and, perhaps, ends in the new tokens.
    private func joinedBlock(at start: Int, head: Int, step: AppendStep) throws(CodecError) -> KVCacheLayer {
        let fromWindow = min(step.windowCount - start, shape.blockLength)
        let parts = try CachePart.allCases.map { part throws(CodecError) in
            let buffer = try emptyBuffer(byteCount: shape.blockLength * shape.rowBytes)
            let pieces = [
                (tensor: window[part], row: start, count: fromWindow),
                (tensor: step.source[part], row: 0, count: shape.blockLength - fromWindow),
            ]
            var filled = 0
            for piece in pieces {
                unsafe buffer.withUnsafeMutableBytes { bytes in
                    guard let base = bytes.baseAddress, let tensor = piece.tensor else { return }
                    let destination = unsafe tck_mutable_rows(
                        bytes: base + filled * shape.rowBytes,
                        token_stride: shape.rowBytes,
                        type: shape.elementType.kernelType
                    )
                    unsafe tensor.withRows(head: head, from: piece.row) { rows in
                        unsafe BlockCoder.copyRows(
                            rows,
                            count: piece.count,
                            headDimension: shape.headDimension,
                            to: destination
                        )
                    }
                }
                filled += piece.count
            }
            return KVTensor(
                bytes: buffer.shared,
                elementType: shape.elementType,
                heads: 1,
                tokens: shape.blockLength,
                headDimension: shape.headDimension
            )
        }
        return KVCacheLayer(keys: parts[0], values: parts[1])
    }

    private func unsupportedValue(in source: KVCacheLayer, head: Int, tokens: Range<Int>) -> CodecError? {
        for (part, name) in [(CachePart.keys, "key"), (.values, "value")] {
            let channels = coders[head].quantizedChannels(part)
            guard channels.contains(true) else { continue }
            let found = UnsupportedValue.first(
                in: source[part],
                head: head,
                tokens: tokens,
                channels: channels,
                name: name,
                limit: BlockCoder.maximumMagnitude
            )
            if let found { return found.error(layer: index, firstToken: tokenCount) }
        }
        return nil
    }
}
