internal import CThinkKernels
internal import ComputeRuntime
internal import KVCacheModel

/// Packs and unpacks blocks of one head by its plan; the only caller of the packing kernels.
final class BlockCoder: Sendable {
    /// The largest magnitude that quantization takes.
    static let maximumMagnitude = TCK_MAX_QUANTIZED_MAGNITUDE

    let plan: HeadPlan
    let layout: BlockLayout
    /// What the attention kernels need to know of the blocks.
    let format: tck_block_format
    private let shape: BlockShape
    /// A row that has the pruned channels' means, or empty if the plan has none: zeros then stand in for them.
    let prunedRow: [Float]

    init(plan: HeadPlan, shape: BlockShape) {
        self.plan = plan
        self.shape = shape
        layout = BlockLayout(plan: plan, shape: shape)
        format = layout.format(plan: plan, shape: shape)
        // Only where the file has a mean for every pruned channel: a row for each head may be much more than the file.
        guard !plan.prunedMeans.isEmpty else {
            prunedRow = []
            return
        }
        var row = [Float](repeating: 0, count: shape.headDimension)
        for (channel, mean) in zip(plan.prunedChannels(headDimension: row.count), plan.prunedMeans) {
            row[channel] = mean
        }
        prunedRow = row
    }

    /// A coder for each plan; plans that are equal share theirs.
    static func coders(for plans: [HeadPlan], shape: BlockShape) -> [BlockCoder] {
        var known: [HeadPlan: BlockCoder] = [:]
        return plans.map { plan in
            // Means that are equal as numbers may differ in the sign of zero.
            guard plan.prunedMeans.isEmpty else { return BlockCoder(plan: plan, shape: shape) }
            if let coder = known[plan] { return coder }
            let coder = BlockCoder(plan: plan, shape: shape)
            known[plan] = coder
            return coder
        }
    }

    /// Which channels of keys or values are quantized: pruned and full-precision ones may hold any number.
    func quantizedChannels(_ part: CachePart) -> [Bool] {
        let fullWidth = shape.elementType.bitWidth
        switch part {
        case .values: return [Bool](repeating: plan.valueWidth < fullWidth, count: shape.headDimension)
        case .keys:
            let quantized = HeadPlan(
                keyRuns: plan.keyRuns.filter { $0.width < fullWidth },
                valueWidth: plan.valueWidth,
                prunedMeans: []
            )
            return quantized.keepMask(headDimension: shape.headDimension)
        }
    }

    /// Packs a block of `blockLength` rows.
    ///
    /// - Returns: whether all numbers could be quantized; if not, the bytes are of no use.
    func pack(keys: tck_rows, values: tck_rows, into block: UnsafeMutableRawPointer) -> Bool {
        let tokens = shape.blockLength
        for (run, part) in zip(plan.keyRuns, layout.keyRuns) {
            let packed = unsafe run.channels.withUnsafeBufferPointer { indices in
                let channels = unsafe tck_channels(indices: indices.baseAddress, count: indices.count)
                if run.width == shape.elementType.bitWidth {
                    unsafe Kernels.best.pack_full_keys(keys, tokens, channels, block + part.codes)
                    return true
                }
                return unsafe Kernels.best.pack_keys(
                    keys,
                    tokens,
                    channels,
                    shape.headDimension,
                    UInt32(run.width),
                    Self.mutablePart(part, of: block)
                )
            }
            guard packed else { return false }
        }
        guard plan.valueWidth < shape.elementType.bitWidth else {
            unsafe Self.copyRows(
                values,
                count: tokens,
                headDimension: shape.headDimension,
                to: tck_mutable_rows(
                    bytes: block + layout.values.codes,
                    token_stride: shape.rowBytes,
                    type: shape.elementType.kernelType
                )
            )
            return true
        }
        return unsafe Kernels.best.pack_values(
            values,
            tokens,
            shape.headDimension,
            tokens,
            UInt32(plan.valueWidth),
            Self.mutablePart(layout.values, of: block)
        )
    }

    /// Restores the keys of a block into `blockLength` rows.
    func unpackKeys(of block: UnsafeRawPointer, into rows: tck_mutable_rows) {
        let tokens = shape.blockLength
        if plan.keptChannelCount < shape.headDimension { unsafe fillPruned(rows) }
        for (run, part) in zip(plan.keyRuns, layout.keyRuns) {
            unsafe run.channels.withUnsafeBufferPointer { indices in
                let channels = unsafe tck_channels(indices: indices.baseAddress, count: indices.count)
                if run.width == shape.elementType.bitWidth {
                    unsafe Kernels.best.unpack_full_keys(
                        shape.elementType.kernelType,
                        block + part.codes,
                        tokens,
                        channels,
                        rows
                    )
                } else {
                    unsafe Kernels.best.unpack_keys(
                        Self.part(part, of: block),
                        tokens,
                        channels,
                        shape.headDimension,
                        UInt32(run.width),
                        rows
                    )
                }
            }
        }
    }

    /// Restores the values of a block into `blockLength` rows.
    func unpackValues(of block: UnsafeRawPointer, into rows: tck_mutable_rows) {
        guard plan.valueWidth < shape.elementType.bitWidth else {
            let stored = unsafe tck_rows(
                bytes: block + layout.values.codes,
                token_stride: shape.rowBytes,
                type: shape.elementType.kernelType
            )
            unsafe Self.copyRows(stored, count: shape.blockLength, headDimension: shape.headDimension, to: rows)
            return
        }
        unsafe Kernels.best.unpack_values(
            Self.part(layout.values, of: block),
            shape.blockLength,
            shape.headDimension,
            shape.blockLength,
            UInt32(plan.valueWidth),
            rows
        )
    }

    /// Copies rows, converting where the types differ, bit for bit where they don't.
    static func copyRows(_ source: tck_rows, count: Int, headDimension: Int, to destination: tck_mutable_rows) {
        guard let from = unsafe source.bytes, let to = unsafe destination.bytes else { return }
        if unsafe source.type == destination.type {
            let rowBytes = unsafe headDimension * source.type.byteCount
            if unsafe source.token_stride == rowBytes && destination.token_stride == rowBytes {
                unsafe to.copyMemory(from: from, byteCount: count * rowBytes)
                return
            }
            for row in 0..<count {
                unsafe (to + row * destination.token_stride).copyMemory(
                    from: from + row * source.token_stride,
                    byteCount: rowBytes
                )
            }
            return
        }
        unsafe withUnsafeTemporaryAllocation(of: Float.self, capacity: headDimension) { scratch in
            guard let wide = scratch.baseAddress else { return }
            for row in 0..<count {
                unsafe Kernels.best.widen(source.type, from + row * source.token_stride, headDimension, wide)
                unsafe Kernels.best.narrow(destination.type, wide, headDimension, to + row * destination.token_stride)
            }
        }
    }

    private func fillPruned(_ rows: tck_mutable_rows) {
        guard let base = unsafe rows.bytes else { return }
        let rowBytes = unsafe shape.headDimension * rows.type.byteCount
        if prunedRow.isEmpty {
            unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: rowBytes)
        } else {
            unsafe Kernels.best.narrow(rows.type, prunedRow, shape.headDimension, base)
        }
        for row in 1..<shape.blockLength {
            unsafe (base + row * rows.token_stride).copyMemory(from: base, byteCount: rowBytes)
        }
    }

    private static func part(_ part: BlockLayout.Part, of block: UnsafeRawPointer) -> tck_packed {
        unsafe tck_packed(
            codes: (block + part.codes).assumingMemoryBound(to: UInt8.self),
            scales: (block + part.scales).assumingMemoryBound(to: UInt16.self),
            minima: (block + part.minima).assumingMemoryBound(to: UInt16.self)
        )
    }

    private static func mutablePart(
        _ part: BlockLayout.Part,
        of block: UnsafeMutableRawPointer
    ) -> tck_mutable_packed {
        unsafe tck_mutable_packed(
            codes: (block + part.codes).assumingMemoryBound(to: UInt8.self),
            scales: (block + part.scales).assumingMemoryBound(to: UInt16.self),
            minima: (block + part.minima).assumingMemoryBound(to: UInt16.self)
        )
    }
}

extension HeadPlan {
    /// The key channels in no run, ascending.
    func prunedChannels(headDimension: Int) -> [Int] {
        keepMask(headDimension: headDimension).enumerated().filter { !$0.element }.map(\.offset)
    }
}
