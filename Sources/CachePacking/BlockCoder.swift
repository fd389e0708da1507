internal import ByteStorage
internal import CThinkKernels
internal import ComputeRuntime
internal import KVCacheModel

/// Packs and unpacks blocks of one head by its plan; the only caller of the packing kernels.
final class BlockCoder: Sendable {
    let plan: HeadPlan
    /// What a block holds, and where.
    let format: tck_block_format
    /// The format's key runs, and the channels of all of them, one run after another.
    private let runs: [tck_key_run]
    private let channels: [UInt16]
    /// The mean of every key channel that is pruned or centered, zero for others; empty if the plan has no means of keys.
    let keyMeans: [Float]
    /// The value channels that blocks have, if they don't have all; nil if they do.
    let keptValueChannels: [UInt16]?
    /// The means of the value channels that blocks have, if these are coded less their mean, else empty.
    let keptValueMeans: [Float]
    /// What stands in for pruned value channels, by channel; empty for zeros.
    let prunedValueMeans: [Float]
    /// Whether some run's keys are coded less their channel's mean.
    private let centersKeys: Bool
    /// What turns keys and values into components, if these are what is coded; nil for values if there are none.
    let components: (keys: ComponentTransform, values: ComponentTransform?)?

    /// Bytes of a block.
    var blockByteCount: Int { format.byte_count }

    init(plan: HeadPlan, shape: BlockShape) {
        self.plan = plan
        format = plan.blockFormat(shape: shape)
        runs = unsafe withUnsafeBytes(of: format.key_runs) { [count = format.key_run_count] bytes in
            unsafe Array(bytes.bindMemory(to: tck_key_run.self).prefix(count))
        }
        channels = plan.keyRuns.flatMap(\.channels)
        centersKeys = plan.keyRuns.contains(where: \.coding.isCentered)
        // Only where the file has means: a row for each head may be much more than the file.
        keyMeans = plan.keyMeans.isEmpty ? [] : plan.keyMeanRow
        keptValueChannels = plan.valuePruning == .none ? nil : plan.valueChannels
        prunedValueMeans = plan.valuePruning == .means ? plan.valueMeanRow : []
        keptValueMeans = plan.keptValueMeans
        components = plan.components.map { (ComponentTransform($0.keys), $0.values.map(ComponentTransform.init)) }
    }

    /// A coder for each head of a layer; heads whose plans are equal share theirs.
    static func coders(for plan: LayerPlan, shape: BlockShape) -> [BlockCoder] {
        var known: [HeadPlan: BlockCoder] = [:]
        return plan.heads.map { head in
            // Means that are equal as numbers may differ in the sign of zero.
            guard !head.hasMeans else {
                return BlockCoder(plan: head, shape: shape)
            }
            if let coder = known[head] { return coder }
            let coder = BlockCoder(plan: head, shape: shape)
            known[head] = coder
            return coder
        }
    }

    /// Which channels of keys or values are quantized: pruned and full-precision ones may hold any number.
    func quantizedChannels(_ part: CachePart) -> [Bool] {
        if let components = plan.components {
            return [Bool](repeating: true, count: components[part]?.channelCount ?? 0)
        }
        switch part {
        case .values:
            return plan.values.isFullPrecision
                ? [Bool](repeating: false, count: plan.valueDimension) : plan.valueKeepMask
        case .keys:
            var quantized = [Bool](repeating: false, count: format.key_dimension)
            for run in plan.keyRuns where !run.coding.isFullPrecision {
                for channel in run.channels { quantized[Int(channel)] = true }
            }
            return quantized
        }
    }

    /// Packs a block of rows.
    ///
    /// - Returns: whether all numbers could be quantized; if not, the bytes are of no use.
    func pack(keys: tck_rows, values: tck_rows, into block: UnsafeMutableRawPointer) -> Bool {
        if let components {
            return unsafe pack(keys: keys, by: components.keys, values: values, by: components.values, into: block)
        }
        guard let keptValueChannels else { return unsafe packKept(keys: keys, values: values, into: block) }
        return unsafe withValueScratch(of: values.type, channels: keptValueChannels) { scratch, channels in
            unsafe tck_gather_channels(values, format.tokens, channels, scratch.bytes)
            let kept = unsafe tck_rows(bytes: scratch.bytes, token_stride: scratch.token_stride, type: scratch.type)
            return unsafe packKept(keys: keys, values: kept, into: block)
        }
    }

    /// Packs the components of a block of rows.
    private func pack(
        keys: tck_rows,
        by keyTransform: ComponentTransform,
        values: tck_rows,
        by valueTransform: ComponentTransform?,
        into block: UnsafeMutableRawPointer
    ) -> Bool {
        let counts = [keyTransform, valueTransform].map { $0?.componentFloats(rows: format.tokens) ?? 0 }
        return unsafe withUnsafeTemporaryAllocation(of: Float.self, capacity: counts[0] + counts[1]) { floats in
            guard let base = floats.baseAddress, unsafe keyTransform.turn(keys, count: format.tokens, into: base) else {
                return false
            }
            if let valueTransform {
                guard unsafe valueTransform.turn(values, count: format.tokens, into: base + counts[0]) else {
                    return false
                }
            }
            return unsafe withUnsafePointer(to: format) { format in
                unsafe tck_pack_components(
                    Kernels.bestPointer,
                    format,
                    componentRows(base, of: keyTransform),
                    componentRows(base + counts[0], of: valueTransform ?? keyTransform),
                    block
                )
            }
        }
    }

    private func componentRows(_ numbers: UnsafePointer<Float>, of transform: ComponentTransform) -> tck_rows {
        unsafe tck_rows(
            bytes: UnsafeRawPointer(numbers),
            token_stride: transform.componentFloats(rows: 1) * MemoryLayout<Float>.stride,
            type: TCK_FLOAT32
        )
    }

    /// Restores keys or values of a block from their components.
    private func unpack(
        _ part: CachePart,
        by transform: ComponentTransform,
        of block: UnsafeRawPointer,
        into rows: tck_mutable_rows
    ) {
        unsafe withUnsafePointer(to: format) { format in
            let stride = transform.componentFloats(rows: 1)
            let count = unsafe format.pointee.tokens * stride
            unsafe withUnsafeTemporaryAllocation(
                byteCount: count * MemoryLayout<Float>.stride + tck_unpacking_bytes(format),
                alignment: AlignedBuffer.alignment
            ) { memory in
                guard let base = memory.baseAddress else { return }
                let components = unsafe base.bindMemory(to: Float.self, capacity: count)
                unsafe components.initialize(repeating: 0, count: count)
                unsafe tck_unpack_components(
                    Kernels.bestPointer,
                    format,
                    part == .values,
                    block,
                    base + count * MemoryLayout<Float>.stride,
                    components,
                    stride
                )
                unsafe transform.restore(components, count: format.pointee.tokens, into: rows)
            }
        }
    }

    /// Packs a block of rows whose values have the kept channels only.
    private func packKept(keys: tck_rows, values: tck_rows, into block: UnsafeMutableRawPointer) -> Bool {
        unsafe withUnsafePointer(to: format) { format in
            unsafe withUnsafeTemporaryAllocation(of: Float.self, capacity: tck_packing_floats(format)) { floats in
                unsafe keyMeans.withUnsafeBufferPointer { keyMeans in
                    unsafe keptValueMeans.withUnsafeBufferPointer { valueMeans in
                        unsafe tck_pack_block(
                            Kernels.bestPointer,
                            format,
                            channels,
                            keys,
                            values,
                            tck_centering(
                                key_means: keyMeans.baseAddress,
                                value_means: valueMeans.baseAddress,
                                workspace: floats.baseAddress
                            ),
                            block
                        )
                    }
                }
            }
        }
    }

    /// Restores the keys of a block into rows.
    func unpackKeys(of block: UnsafeRawPointer, into rows: tck_mutable_rows) {
        if let components {
            unsafe unpack(.keys, by: components.keys, of: block, into: rows)
            return
        }
        if centersKeys {
            // Centered runs first, as all channels of their rows are written, then the others over them.
            unsafe withScratchRows(dimension: format.key_dimension) { scratch in
                unsafe unpackKeyRuns(of: block, into: scratch, where: isCentered)
                unsafe addMeans(keyMeans, to: scratch, dimension: format.key_dimension, into: rows)
            }
        } else if channels.count < format.key_dimension {
            unsafe fillPruned(rows, means: keyMeans, dimension: format.key_dimension)
        }
        unsafe unpackKeyRuns(of: block, into: rows) { !isCentered($0) }
    }

    private func isCentered(_ run: tck_key_run) -> Bool { run.coding.scales == Coding.Scales.compact.rawValue }

    private func unpackKeyRuns(
        of block: UnsafeRawPointer,
        into rows: tck_mutable_rows,
        where isWanted: (tck_key_run) -> Bool
    ) {
        var start = 0
        for run in runs {
            defer { start += run.count }
            guard isWanted(run) else { continue }
            unsafe channels.withUnsafeBufferPointer { indices in
                let channels = unsafe tck_channels(
                    indices: indices.baseAddress.map { unsafe $0 + start },
                    count: run.count
                )
                if run.coding.width == 0 {
                    unsafe Kernels.best.unpack_full_keys(
                        format.full_type,
                        block + run.codes,
                        format.tokens,
                        channels,
                        rows
                    )
                } else {
                    unsafe Kernels.best.unpack_keys(
                        Self.part(of: block, codes: run.codes, scales: run.scales, minima: run.minima),
                        format.tokens,
                        channels,
                        format.key_dimension,
                        run.coding,
                        rows
                    )
                }
            }
        }
    }

    /// Restores the values of a block into rows.
    func unpackValues(of block: UnsafeRawPointer, into rows: tck_mutable_rows) {
        if let components {
            if let transform = components.values { unsafe unpack(.values, by: transform, of: block, into: rows) }
            return
        }
        guard let keptValueChannels else {
            unsafe unpackKeptValues(of: block, into: rows)
            return
        }
        unsafe fillPruned(rows, means: prunedValueMeans, dimension: plan.valueDimension)
        unsafe withValueScratch(of: rows.type, channels: keptValueChannels) { scratch, channels in
            unsafe unpackKeptValues(of: block, into: scratch)
            unsafe tck_scatter_channels(scratch.bytes, format.tokens, channels, rows)
        }
    }

    /// Lends memory for the values of a block's kept channels, rows that follow each other, and these channels.
    private func withValueScratch<Result>(
        of type: tck_element_type,
        channels: [UInt16],
        _ body: (tck_mutable_rows, tck_channels) -> Result
    ) -> Result {
        let stride = channels.count * type.byteCount
        return unsafe withUnsafeTemporaryAllocation(
            byteCount: format.tokens * stride,
            alignment: AlignedBuffer.alignment
        ) { scratch in
            unsafe channels.withUnsafeBufferPointer { indices in
                unsafe body(
                    tck_mutable_rows(bytes: scratch.baseAddress, token_stride: stride, type: type),
                    tck_channels(indices: indices.baseAddress, count: indices.count)
                )
            }
        }
    }

    /// Restores the values of the channels that a block has.
    private func unpackKeptValues(of block: UnsafeRawPointer, into rows: tck_mutable_rows) {
        guard format.value_coding.width > 0 else {
            let stored = unsafe tck_rows(
                bytes: block + format.value_codes,
                token_stride: format.value_dimension * format.full_type.byteCount,
                type: format.full_type
            )
            unsafe Self.copyRows(stored, count: format.tokens, headDimension: format.value_dimension, to: rows)
            return
        }
        guard plan.values.isCentered else {
            unsafe unpackValueCodes(of: block, into: rows)
            return
        }
        let dimension = format.value_dimension
        unsafe withScratchRows(dimension: dimension) { scratch in
            unsafe unpackValueCodes(of: block, into: scratch)
            if plan.values.rotation == .hadamard {
                let numbers = unsafe scratch.bytes?.assumingMemoryBound(to: Float.self)
                unsafe Kernels.best.rotate_rows(numbers, format.tokens, dimension)
            }
            unsafe addMeans(keptValueMeans, to: scratch, dimension: dimension, into: rows)
        }
    }

    private func unpackValueCodes(of block: UnsafeRawPointer, into rows: tck_mutable_rows) {
        unsafe Kernels.best.unpack_values(
            Self.part(
                of: block,
                codes: format.value_codes,
                scales: format.value_scales,
                minima: format.value_minima
            ),
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

    /// Lends rows of float32 for a block, zeros.
    private func withScratchRows(dimension: Int, _ body: (tck_mutable_rows) -> Void) {
        unsafe withUnsafeTemporaryAllocation(of: Float.self, capacity: format.tokens * dimension) { floats in
            unsafe floats.initialize(repeating: 0)
            unsafe body(
                tck_mutable_rows(
                    bytes: floats.baseAddress,
                    token_stride: dimension * MemoryLayout<Float>.stride,
                    type: TCK_FLOAT32
                )
            )
        }
    }

    /// Adds means to rows of float32 and stores them: Formats/kivi.md, "Compact scales".
    private func addMeans(
        _ means: [Float],
        to source: tck_mutable_rows,
        dimension: Int,
        into rows: tck_mutable_rows
    ) {
        let numbers = unsafe UnsafeRawPointer(source.bytes)?.assumingMemoryBound(to: Float.self)
        unsafe Kernels.best.add_means(numbers, format.tokens, dimension, means, rows)
    }

    /// Fills rows with what stands in for pruned channels.
    ///
    /// - Parameter means: of all channels; empty for zeros.
    private func fillPruned(_ rows: tck_mutable_rows, means: [Float], dimension: Int) {
        guard let base = unsafe rows.bytes else { return }
        let rowBytes = unsafe dimension * rows.type.byteCount
        if means.isEmpty {
            unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: rowBytes)
        } else {
            unsafe Kernels.best.narrow(rows.type, means, dimension, base)
        }
        for row in 1..<format.tokens {
            unsafe (base + row * rows.token_stride).copyMemory(from: base, byteCount: rowBytes)
        }
    }

    private static func part(of block: UnsafeRawPointer, codes: Int, scales: Int, minima: Int) -> tck_packed {
        unsafe tck_packed(
            codes: (block + codes).assumingMemoryBound(to: UInt8.self),
            scales: block + scales,
            minima: block + minima
        )
    }
}

extension HeadPlan {
    /// What a block of this plan holds, and where.
    func blockFormat(shape: BlockShape) -> tck_block_format {
        var plan = tck_block_plan()
        plan.tokens = shape.blockLength
        plan.key_dimension = components == nil ? keyDimension : keptChannelCount
        plan.value_dimension = keptValueChannelCount
        plan.full_type = shape.elementType.kernelType
        plan.values = values.kernelCoding
        let keys =
            components?.keys.runs.map { ($0.count, $0.coding) } ?? keyRuns.map { ($0.channels.count, $0.coding) }
        let ofValues = components?.values?.runs.map { ($0.count, $0.coding) } ?? []
        plan.key_run_count = keys.count
        plan.value_run_count = ofValues.count
        func fill(_ bytes: UnsafeMutableRawBufferPointer, with coded: [(count: Int, coding: Coding)]) {
            let runs = unsafe bytes.bindMemory(to: tck_coded_channels.self)
            for (index, run) in coded.enumerated() {
                unsafe runs[index] = tck_coded_channels(count: run.count, coding: run.coding.kernelCoding)
            }
        }
        unsafe withUnsafeMutableBytes(of: &plan.key_runs) { unsafe fill($0, with: keys) }
        unsafe withUnsafeMutableBytes(of: &plan.value_runs) { unsafe fill($0, with: ofValues) }
        return unsafe withUnsafePointer(to: plan) { unsafe tck_layout($0) }
    }
}

extension Coding {
    var kernelCoding: tck_coding {
        tck_coding(
            width: UInt8(width),
            scales: scales.rawValue,
            ranges: ranges.rawValue,
            rotation: rotation.rawValue
        )
    }
}
