internal import ByteStorage
internal import CThinkKernels
internal import KVCacheModel

/// Packs and unpacks blocks of one head by its plan; the only caller of the packing kernels.
final class BlockCoder: Sendable {
    /// The largest magnitude that quantization takes.
    static let maximumMagnitude = TCK_MAX_QUANTIZED_MAGNITUDE

    let plan: HeadPlan
    /// What a block holds, and where.
    let format: tck_block_format
    /// The runs of `format`.
    private let keyRuns: [tck_key_run]
    /// The key channels of all runs, one run after another.
    private let channels: [UInt16]
    private let shape: BlockShape
    /// A row that has the pruned channels' means, or empty if the plan has none: zeros then stand in for them.
    let prunedRow: [Float]

    init(plan: HeadPlan, shape: BlockShape) {
        self.plan = plan
        self.shape = shape
        let format = plan.blockFormat(shape: shape)
        self.format = format
        keyRuns = unsafe withUnsafeBytes(of: format.key_runs) { bytes in
            unsafe Array(bytes.bindMemory(to: tck_key_run.self).prefix(format.key_run_count))
        }
        channels = plan.keyRuns.flatMap(\.channels)
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

    /// Bytes of a block.
    var byteCount: Int { format.byte_count }

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

    /// Packs a block of `blockLength` rows, which have the shape's element type.
    ///
    /// - Returns: whether all numbers could be quantized; if not, the bytes are of no use.
    func pack(keys: tck_rows, values: tck_rows, into block: UnsafeMutableRawPointer) -> Bool {
        unsafe withUnsafePointer(to: format) { format in
            unsafe tck_pack_block(Kernels.table, format, channels, keys, values, block)
        }
    }

    /// Restores the keys of a block into `blockLength` rows.
    func unpackKeys(of block: UnsafeRawPointer, into rows: tck_mutable_rows) {
        if channels.count < shape.headDimension { unsafe fillPruned(rows) }
        unsafe channels.withUnsafeBufferPointer { channels in
            var first = 0
            for run in keyRuns {
                let indices = unsafe channels.baseAddress.map { unsafe $0 + first }
                unsafe unpack(run, tck_channels(indices: indices, count: run.count), of: block, into: rows)
                first += run.count
            }
        }
    }

    private func unpack(
        _ run: tck_key_run,
        _ channels: tck_channels,
        of block: UnsafeRawPointer,
        into rows: tck_mutable_rows
    ) {
        let tokens = format.tokens
        guard run.coding.width > 0 else {
            unsafe Kernels.best.unpack_full_keys(format.full_type, block + run.codes, tokens, channels, rows)
            return
        }
        let packed = unsafe tck_packed(
            codes: (block + run.codes).assumingMemoryBound(to: UInt8.self),
            scales: block + run.scales,
            minima: block + run.minima
        )
        unsafe Kernels.best.unpack_keys(packed, tokens, channels, format.key_dimension, run.coding, rows)
    }

    /// Restores the values of a block into `blockLength` rows.
    func unpackValues(of block: UnsafeRawPointer, into rows: tck_mutable_rows) {
        guard format.value_coding.width > 0 else {
            let stored = unsafe tck_rows(
                bytes: block + format.value_codes,
                token_stride: format.value_dimension * format.full_type.byteCount,
                type: format.full_type
            )
            unsafe Self.copyRows(stored, count: format.tokens, headDimension: format.value_dimension, to: rows)
            return
        }
        let packed = unsafe tck_packed(
            codes: (block + format.value_codes).assumingMemoryBound(to: UInt8.self),
            scales: block + format.value_scales,
            minima: block + format.value_minima
        )
        unsafe Kernels.best.unpack_values(
            packed,
            format.tokens,
            format.value_dimension,
            format.value_group,
            format.value_coding,
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
}

extension HeadPlan {
    /// The key channels in no run, ascending.
    func prunedChannels(headDimension: Int) -> [Int] {
        keepMask(headDimension: headDimension).enumerated().filter { !$0.element }.map(\.offset)
    }
}
