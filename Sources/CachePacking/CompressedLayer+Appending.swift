internal import ByteStorage
internal import CThinkKernels
public import KVCacheModel

/// What an append will do: which rows come, and where the layer's rows then are.
package struct AppendStep: Sendable {
    let source: KVCacheLayer
    /// Tokens that the cache gets; those of layers that hold only some of them, or none, included.
    let newTokens: Int
    let before: LayerExtent
    let after: LayerExtent

    /// The blocks that rows of the window and new ones fill.
    var newBlocks: Range<Int> {
        after.blocks.isEmpty ? 0..<0 : max(after.blocks.lowerBound, before.blocks.upperBound)..<after.blocks.upperBound
    }

    /// Rows of the old window and new ones that are then in blocks.
    var leavingRows: Int { after.windowStart - before.windowStart }
}

extension CompressedLayer {
    /// Appends rows of the cache's next tokens: whole blocks of the oldest leave the window, which keeps at least
    /// `residualWindow` rows.
    ///
    /// The bytes are the same whether tokens come one by one or all at once. On an error nothing is appended.
    ///
    /// - Parameters:
    ///   - keys: `[kvHeads, tokens, keyDimension]`, after rotary embedding, of the cache's element type.
    ///   - values: `[kvHeads, tokens, valueDimension]`.
    /// - Throws: `CodecError` if the shapes don't fit, a number can't be quantized, or there is no memory.
    public mutating func append(keys: KVTensor, values: KVTensor) throws(CodecError) {
        let step = try beginAppend(KVCacheLayer(keys: keys, values: values), newTokens: keys.tokens)
        do {
            for head in 0..<geometry.kvHeads { try packBlocks(of: step, head: head) }
            try makeRowRoom(for: step)
        } catch {
            abandonAppend()
            throw error
        }
        try finishAppend(step)
    }

    /// Checks what is appended and makes room for the blocks that it fills.
    ///
    /// - Parameter newTokens: tokens that the cache gets.
    package mutating func beginAppend(_ source: KVCacheLayer, newTokens: Int) throws(CodecError) -> AppendStep {
        for part in CachePart.allCases {
            let tensor = source[part]
            guard tensor.heads == geometry.kvHeads, tensor.headDimension == geometry.dimension(part),
                tensor.elementType == shape.elementType, tensor.tokens == source.keys.tokens
            else {
                throw CodecError(
                    .shapeMismatch,
                    layer: index,
                    "\(part) of \(tensor.heads) heads, \(tensor.tokens) tokens, dimension \(tensor.headDimension), "
                        + "\(tensor.elementType.name) don't fit a layer of \(geometry.kvHeads) heads, dimension "
                        + "\(geometry.dimension(part)), \(shape.elementType.name)"
                )
            }
        }
        guard !geometry.isEmpty || source.keys.tokens == 0 else {
            throw CodecError(.shapeMismatch, layer: index, "rows for a layer that has no keys")
        }
        // The first rows say which tokens they are; all later ones are the cache's next tokens.
        let isFirst = tokenCount == extent.first
        guard source.held == .all || isFirst && source.held == held else {
            throw CodecError(.shapeMismatch, layer: index, "rows that are appended must be of the cache's next tokens")
        }
        if case .listed = held, isFirst, source.held == .all {
            throw CodecError(.shapeMismatch, layer: index, "the first rows must be of the tokens that the layer lists")
        }
        guard isFirst || newTokens == 0 && source.state.isEmpty || hasSameStates(as: source) else {
            throw CodecError(
                .partialCache,
                layer: index,
                "the layer has state of the tokens so far; append needs its new state under the same names"
            )
        }
        if let run = plan.heads.lazy.flatMap(\.codings).first(where: { !$0.ranges.isKnown }) {
            throw CodecError(
                .unsupportedPlan,
                layer: index,
                "the cache's ranges are chosen by rule \(run.ranges.rawValue), which this version doesn't know: it can "
                    + "be read and attended to, and nothing can be appended; use a newer version"
            )
        }
        var after = extent
        after.end += source.keys.tokens
        after.blockEnd = max(extent.blockEnd, geometry.isEmpty ? 0 : shape.blockEnd(places: after.end))
        let step = AppendStep(source: source, newTokens: newTokens, before: extent, after: after)
        do {
            try makeRoom(for: step)
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
        for block in step.newBlocks {
            let places = block * shape.blockLength..<(block + 1) * shape.blockLength
            let readable = extent.readablePlaces(ofBlocks: block..<block + 1, sinks: plan.sinks)
            // A block of nothing but stand-ins is zeros, as its memory is.
            guard !readable.isEmpty else { continue }
            let isWhole = readable == places && places.lowerBound >= step.before.end
            let packed =
                isWhole
                ? pack(block, head: head, from: step.source, sourceHead: head, row: places.lowerBound - step.before.end)
                : pack(
                    block,
                    head: head,
                    from: try joinedBlock(places, readable: readable, head: head, step: step),
                    sourceHead: 0,
                    row: 0
                )
            if !packed {
                throw unsupportedValue(of: step, head: head, from: step.before.end)
                    ?? CodecError(.unsupportedValue, layer: index, head: head, "a number can't be quantized")
            }
        }
        // What stays in the window will be quantized one day: refuse it now, when its source is known.
        if let error = unsupportedValue(of: step, head: head, from: max(step.after.windowStart, step.before.end)) {
            throw error
        }
    }

    /// Makes room for sinks and window, so that `finishAppend` can't fail as long as nobody copies the layer.
    package mutating func makeRowRoom(for step: AppendStep) throws(CodecError) {
        do {
            try sinks.makeRoom(for: sinkRowCount(step.after))
            try window.makeRoom(for: step.after.windowRowCount)
        } catch {
            throw CodecError(error, layer: index)
        }
    }

    /// Moves the rest of the rows into the window, and sinks that are now in blocks to the others.
    package mutating func finishAppend(_ step: AppendStep) throws(CodecError) {
        do {
            for place in sinks.count..<sinkRowCount(step.after) {
                let fromWindow = place < step.before.end
                let row = place - (fromWindow ? step.before.windowStart : step.before.end)
                guard let rows = fromWindow ? window.rows : step.source else { continue }
                try sinks.append(rows, rows: row..<row + 1)
            }
            try window.append(step.source, rows: 0..<step.source.keys.tokens, dropping: step.leavingRows)
        } catch {
            throw CodecError(error, layer: index)
        }
        let newTokens = UInt32(tokenCount)..<UInt32(tokenCount + step.newTokens)
        if case .listed(let lists) = held, step.source.held == .all {
            held = .listed(lists.map { $0 + newTokens })
        }
        if !step.source.state.isEmpty { state = step.source.state }
        extent = step.after
        tokenCount += step.newTokens
    }

    private func hasSameStates(as other: KVCacheLayer) -> Bool { state.map(\.name) == other.state.map(\.name) }

    /// Gives back the room that `beginAppend` made.
    package mutating func abandonAppend() {
        slabs.removeLast(slabs.count - extent.chunks.count)
    }

    // MARK: -

    private mutating func makeRoom(for step: AppendStep) throws(MemoryError) {
        guard !step.newBlocks.isEmpty else { return }
        let hadBlocks = !step.before.blocks.isEmpty
        for (number, chunk) in step.after.chunks.enumerated()
        where step.after.blocks(ofChunk: chunk).overlaps(step.newBlocks) {
            let needed = step.after.blocks(ofChunk: chunk).count
            // A cache's last slab is as long as it must be; only one that grows gets room for full pages.
            let full = (chunk + 1) * shape.blocksPerPage - step.after.blocks(ofChunk: chunk).lowerBound
            if number < slabs.count {
                if slabs[number].capacity >= needed && slabs[number].isWritable() { continue }
                slabs[number] = try grown(
                    slabs[number],
                    filled: step.before.blocks(ofChunk: chunk).count,
                    capacity: full
                )
            } else {
                slabs.append(try Slab(blockBytes: blockBytes, capacity: hadBlocks ? full : needed))
            }
        }
    }

    /// A copy of a slab with more room.
    private func grown(_ slab: Slab, filled: Int, capacity: Int) throws(MemoryError) -> Slab {
        let result = try Slab(blockBytes: blockBytes, capacity: capacity)
        unsafe result.withUnsafeMutableBytes { destination in
            unsafe slab.bytes.withUnsafeBytes { source in
                guard let to = destination.baseAddress, let from = source.baseAddress else { return }
                for head in 0..<geometry.kvHeads {
                    unsafe (to + result.capacity * pageOffsets[head]).copyMemory(
                        from: from + slab.capacity * pageOffsets[head],
                        byteCount: filled * coders[head].blockByteCount
                    )
                }
            }
        }
        return result
    }

    private func pack(_ block: Int, head: Int, from source: KVCacheLayer, sourceHead: Int, row: Int) -> Bool {
        let position = slabPosition(ofBlock: block)
        let slab = slabs[position.slab]
        return unsafe slab.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return false }
            let start = slab.capacity * pageOffsets[head] + position.number * coders[head].blockByteCount
            return unsafe source.keys.withRows(head: sourceHead, from: row) { keys in
                unsafe source.values.withRows(head: sourceHead, from: row) { values in
                    unsafe coders[head].pack(keys: keys, values: values, into: base + start)
                }
            }
        }
    }

    /// The rows of a block of one head that come from the window or have stand-ins: Formats/snapshot.md, "Stand-ins".
    private func joinedBlock(
        _ places: Range<Int>,
        readable: Range<Int>,
        head: Int,
        step: AppendStep
    ) throws(CodecError) -> KVCacheLayer {
        let fromWindow = readable.clamped(to: step.before.windowStart..<step.before.end)
        let fromSource = readable.clamped(to: step.before.end..<max(places.upperBound, step.before.end))
        let parts = try CachePart.allCases.map { part throws(CodecError) in
            let dimension = geometry.dimension(part)
            let rowBytes = dimension * shape.elementType.byteCount
            let bytes = unsafe try filledRows(byteCount: shape.blockLength * rowBytes) { base in
                func copy(_ tensor: KVTensor?, head: Int, row: Int, to place: Int, count: Int) {
                    guard let tensor, count > 0 else { return }
                    let to = unsafe tck_mutable_rows(
                        bytes: base + (place - places.lowerBound) * rowBytes,
                        token_stride: rowBytes,
                        type: shape.elementType.kernelType
                    )
                    unsafe tensor.withRows(head: head, from: row) { rows in
                        unsafe BlockCoder.copyRows(rows, count: count, headDimension: dimension, to: to)
                    }
                }
                copy(
                    window[part],
                    head: head,
                    row: fromWindow.lowerBound - step.before.windowStart,
                    to: fromWindow.lowerBound,
                    count: fromWindow.count
                )
                copy(
                    step.source[part],
                    head: head,
                    row: fromSource.lowerBound - step.before.end,
                    to: fromSource.lowerBound,
                    count: fromSource.count
                )
                guard !readable.isEmpty else { return }
                let standIn = unsafe base + (readable.lowerBound - places.lowerBound) * rowBytes
                for row in 0..<readable.lowerBound - places.lowerBound {
                    unsafe (base + row * rowBytes).copyMemory(from: standIn, byteCount: rowBytes)
                }
            }
            return KVTensor(
                bytes: bytes,
                elementType: shape.elementType,
                heads: 1,
                tokens: shape.blockLength,
                headDimension: dimension
            )
        }
        return KVCacheLayer(keys: parts[0], values: parts[1])
    }

    /// The first number of the new rows from a place on that can't be quantized and has to be.
    private func unsupportedValue(of step: AppendStep, head: Int, from place: Int) -> CodecError? {
        let source = step.source
        let first = max(place, plan.sinks) - step.before.end
        guard first < source.keys.tokens else { return nil }
        for (part, name) in [(CachePart.keys, "key"), (.values, "value")] {
            let channels = coders[head].quantizedChannels(part)
            guard channels.contains(true) else { continue }
            let found = UnsupportedValue.first(
                in: source[part],
                head: head,
                rows: first..<source.keys.tokens,
                channels: channels,
                name: name,
                isSupported: Coding.isQuantizable
            )
            guard let found else { continue }
            let token = source.held.token(ofRow: found.row, head: head, firstToken: tokenCount)
            return found.error(layer: index, token: token)
        }
        return nil
    }
}
