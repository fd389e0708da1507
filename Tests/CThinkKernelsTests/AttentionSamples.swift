import CThinkKernels
import ComputeRuntime
import TestSupport

/// Relative L2 errors of a query's output that are allowed.
enum AttentionBound {
    /// Float32 throughout: scalar against float64, and everything in full precision.
    static let full = 1e-5
    /// Queries and probabilities of 15 bits.
    static let precise = 5e-4
    /// Queries and probabilities of 8 bits.
    static let fast = 3.5e-2
}

/// Random numbers of a normal distribution.
enum NormalNumbers {
    /// Making them anew each time would take most of the tests' time.
    private static let pool = fresh(count: 300_000, seed: .max)

    /// Some of many numbers: those of other seeds may overlap.
    static func slice(count: Int, seed: Int) -> ArraySlice<Float> {
        let start = seed * 7919 % (pool.count - count)
        return pool[start..<start + count]
    }

    static func fresh(count: Int, seed: Int) -> [Float] {
        var generator = SplitMix64(seed: UInt64(seed))
        return (0..<count).map { _ in generator.normal() }
    }
}

// MARK: - Blocks

/// The dimensions of keys and of values.
struct HeadDimensions: Equatable, Sendable, CustomStringConvertible {
    let keys: Int
    let values: Int

    init(keys: Int, values: Int) {
        self.keys = keys
        self.values = values
    }

    /// Keys and values of one dimension.
    init(_ both: Int) { self.init(keys: both, values: both) }

    static let samples =
        sampleHeadDimensions.map { HeadDimensions($0) } + [
            HeadDimensions(keys: 192, values: 128), HeadDimensions(keys: 64, values: 80),
            HeadDimensions(keys: 40, values: 24),
        ]

    var description: String { "\(keys) and \(values)" }
}

/// What the blocks of a head hold, and where; width 0 stands for full precision.
struct AttentionPlan: CustomStringConvertible {
    struct KeyRun {
        var width: UInt32
        var channels: [UInt16]
    }

    let keyDimension: Int
    let valueDimension: Int
    let blockTokens: Int
    let type: ElementType
    let keyRuns: [KeyRun]
    let valueWidth: UInt32
    let format: tck_block_format

    /// - Parameters:
    ///   - keyWidths: the widths of the runs that the kept channels are divided among.
    ///   - keptChannels: how many channels of the keys there are, at random places.
    ///   - hasValuesFirst: whether keys end the block, so that the address sanitizer sees a read beyond them.
    init(
        dimensions: HeadDimensions,
        blockTokens: Int,
        type: ElementType,
        keyWidths: [UInt32],
        keptChannels: Int,
        valueWidth: UInt32,
        hasValuesFirst: Bool = false,
        seed: Int = 0
    ) {
        var generator = SplitMix64(seed: UInt64(seed))
        let channels = (0..<UInt16(dimensions.keys)).shuffled(using: &generator).prefix(keptChannels)
        let runCount = min(keyWidths.count, channels.count)
        let runs = (0..<runCount).map { index in
            KeyRun(
                width: keyWidths[index],
                channels: Array(channels[channels.count * index / runCount..<channels.count * (index + 1) / runCount])
            )
        }
        keyDimension = dimensions.keys
        valueDimension = dimensions.values
        self.blockTokens = blockTokens
        self.type = type
        self.valueWidth = valueWidth
        keyRuns = runs

        var plan = tck_block_plan()
        plan.tokens = blockTokens
        plan.key_dimension = dimensions.keys
        plan.value_dimension = dimensions.values
        plan.full_type = type.tag
        plan.key_run_count = runs.count
        withUnsafeMutableBytes(of: &plan.key_runs) { bytes in
            let slots = bytes.bindMemory(to: tck_coded_channels.self)
            for (index, run) in runs.enumerated() {
                slots[index] = tck_coded_channels(count: run.channels.count, coding: tck_coding(width: run.width))
            }
        }
        plan.values = tck_coding(width: valueWidth)
        format = tck_layout(&plan).packedTightly(hasValuesFirst: hasValuesFirst)
    }

    var dimensions: HeadDimensions { HeadDimensions(keys: keyDimension, values: valueDimension) }

    var keptChannels: [UInt16] { keyRuns.flatMap(\.channels) }

    var isFullPrecision: Bool { valueWidth == 0 && keyRuns.allSatisfy { $0.width == 0 } }

    /// What a kernel of a vector set may differ by from scalar.
    func bound(isPrecise: Bool) -> Double {
        isFullPrecision ? AttentionBound.full : isPrecise ? AttentionBound.precise : AttentionBound.fast
    }

    var description: String {
        let keys = keyRuns.map { "\($0.channels.count) at \($0.width)" }.joined(separator: ", ")
        return "keys \(keys), values \(valueDimension) at \(valueWidth), \(type), blocks of \(blockTokens)"
    }
}

extension tck_block_format {
    private var elementBytes: Int { tck_element_bytes(full_type) }

    /// The runs in use.
    var runs: [tck_key_run] {
        withUnsafeBytes(of: key_runs) { Array($0.bindMemory(to: tck_key_run.self).prefix(key_run_count)) }
    }

    /// Where the keys' last part ends.
    private var keyEnd: Int {
        runs.map { run in
            run.coding.width == 0
                ? run.codes + run.count * tokens * elementBytes
                : run.minima + tck_padded_channels(run.count) * tck_scale_bytes(run.coding)
        }.max() ?? 0
    }

    /// Where the values' last part ends.
    private var valueEnd: Int {
        value_coding.width == 0
            ? value_codes + tokens * value_dimension * elementBytes
            : value_minima + tokens * tck_value_groups(value_dimension, value_group) * tck_scale_bytes(value_coding)
    }

    /// The same parts without what pads the block's end, so that the address sanitizer sees a read beyond the last:
    /// kernels take parts from wherever the format says.
    fileprivate func packedTightly(hasValuesFirst: Bool) -> tck_block_format {
        var format = self
        guard hasValuesFirst else {
            format.byte_count = valueEnd
            return format
        }
        let (first, valueBytes) = (value_codes, valueEnd - value_codes)
        for part in [\tck_block_format.value_codes, \.value_scales, \.value_minima] { format[keyPath: part] -= first }
        withUnsafeMutableBytes(of: &format.key_runs) { bytes in
            let runs = bytes.bindMemory(to: tck_key_run.self)
            for index in 0..<key_run_count {
                for part in [\tck_key_run.codes, \.scales, \.minima] { runs[index][keyPath: part] += valueBytes }
            }
        }
        format.byte_count = valueBytes + keyEnd
        return format
    }
}

/// Blocks of random keys and values, which end where their memory ends.
struct AttentionBlocks {
    let plan: AttentionPlan
    let blockCount: Int
    let bytes: [UInt8]

    var tokens: Int { blockCount * plan.blockTokens }

    /// - Parameter hasConstantKeys: whether all keys of a block are equal, so that its scales are zero.
    init(_ plan: AttentionPlan, blockCount: Int, seed: Int, hasConstantKeys: Bool = false) {
        self.plan = plan
        self.blockCount = blockCount
        let (tokens, type, format) = (plan.blockTokens, plan.type, plan.format)
        let blockKeys = tokens * plan.keyDimension
        let keyCount = blockCount * blockKeys
        var keyValues = Array(NormalNumbers.slice(count: keyCount, seed: seed))
        if hasConstantKeys {
            keyValues = (0..<keyCount).map { keyValues[$0 / blockKeys * blockKeys + $0 % plan.keyDimension] }
        }
        let valueCount = blockCount * tokens * plan.valueDimension
        let keys = type.encode(keyValues)
        let values = type.encode(randomValues(count: valueCount, headDimension: plan.valueDimension, seed: seed + 1))
        let table = (KernelSet.vectorSets.first ?? .scalar).table
        var bytes = [UInt8](repeating: 0, count: blockCount * format.byte_count)
        bytes.withUnsafeMutableBytes { bytes in
            for index in 0..<blockCount {
                func rows(_ source: UnsafeRawBufferPointer, dimension: Int) -> tck_rows {
                    let rowBytes = dimension * type.byteCount
                    let start = source.baseAddress! + index * tokens * rowBytes
                    return tck_rows(bytes: start, token_stride: rowBytes, type: type.tag)
                }
                keys.withUnsafeBytes { keys in
                    values.withUnsafeBytes { values in
                        let keyRows = rows(keys, dimension: plan.keyDimension)
                        let valueRows = rows(values, dimension: plan.valueDimension)
                        let block = bytes.baseAddress! + index * format.byte_count
                        withUnsafePointer(to: format) { format in
                            var workspace = [Float](repeating: 0, count: tck_packing_floats(format))
                            // Means have no part in what attention reads.
                            let means = [Float](repeating: 0, count: max(plan.keyDimension, plan.valueDimension))
                            means.withUnsafeBufferPointer { means in
                                workspace.withUnsafeMutableBufferPointer { workspace in
                                    let centering = tck_centering(
                                        key_means: means.baseAddress,
                                        value_means: means.baseAddress,
                                        workspace: workspace.baseAddress
                                    )
                                    _ = tck_pack_block(
                                        table,
                                        format,
                                        plan.keptChannels,
                                        keyRows,
                                        valueRows,
                                        centering,
                                        block
                                    )
                                }
                            }
                        }
                    }
                }
            }
        }
        self.bytes = bytes
    }

    /// The keys of the kept channels and the values, restored by scalar: `[tokens][channels]`.
    func restored() -> (keys: [Float], values: [Float]) {
        let kernels = KernelSet.scalar.kernels
        let (format, dimension, kept) = (plan.format, plan.valueDimension, plan.keptChannels.count)
        var keys = [Float](repeating: 0, count: tokens * kept)
        var values = [Float](repeating: 0, count: tokens * dimension)
        func rows(_ floats: inout [Float], channels: Int, from channel: Int, block: Int) -> tck_mutable_rows {
            floats.withUnsafeMutableBytes {
                let start = $0.baseAddress! + (block * plan.blockTokens * channels + channel) * 4
                return tck_mutable_rows(bytes: start, token_stride: channels * 4, type: TCK_FLOAT32)
            }
        }
        bytes.withUnsafeBytes { bytes in
            for index in 0..<blockCount {
                let block = bytes.baseAddress! + index * format.byte_count
                var first = 0
                for run in format.runs {
                    let to = rows(&keys, channels: kept, from: first, block: index)
                    withChannels((0..<run.count).map(UInt16.init)) { channels in
                        if run.coding.width == 0 {
                            kernels.unpack_full_keys(
                                format.full_type,
                                block + run.codes,
                                plan.blockTokens,
                                channels,
                                to
                            )
                        } else {
                            let from = packed(block, run.codes, run.scales, run.minima)
                            kernels.unpack_keys(from, plan.blockTokens, channels, run.count, run.coding, to)
                        }
                    }
                    first += run.count
                }
                let to = rows(&values, channels: dimension, from: 0, block: index)
                if format.value_coding.width == 0 {
                    let count = plan.blockTokens * dimension
                    let floats = to.bytes!.assumingMemoryBound(to: Float.self)
                    kernels.widen(format.full_type, block + format.value_codes, count, floats)
                } else {
                    let from = packed(block, format.value_codes, format.value_scales, format.value_minima)
                    let (group, coding) = (format.value_group, format.value_coding)
                    kernels.unpack_values(from, plan.blockTokens, dimension, group, coding, to)
                }
            }
        }
        return (keys, values)
    }
}

/// Parts of a block that lie so many bytes from its begin.
private func packed(_ block: UnsafeRawPointer, _ codes: Int, _ scales: Int, _ minima: Int) -> tck_packed {
    tck_packed(
        codes: (block + codes).assumingMemoryBound(to: UInt8.self),
        scales: block + scales,
        minima: block + minima
    )
}

/// Values of rows. With few channels an output may by chance be near zero and any error large beside it: these have a
/// mean that isn't zero.
func randomValues(count: Int, headDimension: Int, seed: Int) -> [Float] {
    NormalNumbers.slice(count: count, seed: seed).map { $0 + (headDimension < 16 ? 2 : 0) }
}

// MARK: - Queries

/// Queries of a tile whose scores have a standard deviation of about 1.5, in units of log2.
struct AttentionQueries {
    let count: Int
    let keyDimension: Int
    /// The kernels' arrays: see tck_queries.
    private(set) var rows: [Float]
    private(set) var keptRows: [Float]
    var offsets: [Float]
    var visible: [tck_token_range]
    var softCap: Float = 0

    init(count: Int, plan: AttentionPlan, seed: Int) {
        self.count = count
        keyDimension = plan.keyDimension
        let padded = tck_padded_dimension(plan.keyDimension)
        var format = plan.format
        let kept = tck_kept_dimension(&format)
        rows = [Float](repeating: 0, count: Int(TCK_QUERY_ROWS) * padded)
        keptRows = [Float](repeating: 0, count: Int(TCK_QUERY_ROWS) * kept)
        // No slice: a query that is one of the keys would have eyes for that only.
        let numbers = NormalNumbers.fresh(count: count * plan.keyDimension, seed: seed)
        let scale = 1.5 / Float(plan.keyDimension).squareRoot()
        for row in 0..<count {
            for channel in 0..<plan.keyDimension {
                rows[row * padded + channel] = numbers[row * plan.keyDimension + channel] * scale
            }
            var start = row * kept
            for run in plan.keyRuns {
                for (index, channel) in run.channels.enumerated() {
                    keptRows[start + index] = rows[row * padded + Int(channel)]
                }
                start += tck_padded_dimension(run.channels.count)
            }
        }
        offsets = (0..<Int(TCK_QUERY_ROWS)).map { Float($0) - 1.5 }
        visible = Array(repeating: tck_token_range(first: 0, end: Int(TCK_PAGE_TOKENS)), count: Int(TCK_QUERY_ROWS))
    }

    func value(row: Int, channel: Int) -> Float { rows[row * tck_padded_dimension(keyDimension) + channel] }
}

/// What attention over the tiles so far has given, for all TCK_QUERY_ROWS rows, with guarded memory around it.
struct AttentionState: Equatable {
    let dimensions: HeadDimensions
    private var guardedMaxima: GuardedBytes
    private var guardedSums: GuardedBytes
    private var guardedOutputs: GuardedBytes
    private var workspaceIsIntact = true

    init(_ dimensions: HeadDimensions) {
        self.dimensions = dimensions
        let rows = Int(TCK_QUERY_ROWS)
        guardedMaxima = GuardedBytes(floats: Array(repeating: -.infinity, count: rows))
        guardedSums = GuardedBytes(floats: Array(repeating: 0, count: rows))
        let padded = tck_padded_dimension(dimensions.values)
        guardedOutputs = GuardedBytes(floats: Array(repeating: 0, count: rows * padded))
    }

    var marginsAreIntact: Bool {
        workspaceIsIntact && guardedMaxima.marginsAreIntact && guardedSums.marginsAreIntact
            && guardedOutputs.marginsAreIntact
    }

    /// Everything that attention has given for a row, bit for bit.
    func numbers(row: Int) -> [UInt32] {
        let padded = tck_padded_dimension(dimensions.values)
        let outputs = guardedOutputs.floats[row * padded..<row * padded + dimensions.values]
        return ([guardedMaxima.floats[row], guardedSums.floats[row]] + outputs).map(\.bitPattern)
    }

    /// The outputs of all rows, not yet divided by the sums.
    var floats: (maxima: [Float], sums: [Float], outputs: [Float]) {
        (guardedMaxima.floats, guardedSums.floats, guardedOutputs.floats)
    }

    /// Attention's output for a row; null if the row has seen nothing.
    func output(row: Int) -> [Double]? {
        let sum = guardedSums.floats[row]
        guard sum != 0 else { return nil }
        let padded = tck_padded_dimension(dimensions.values)
        return guardedOutputs.floats[row * padded..<row * padded + dimensions.values].map { Double($0) / Double(sum) }
    }

    /// Calls a kernel with the queries and this state.
    mutating func attend(
        _ queries: AttentionQueries,
        isPrecise: Bool = true,
        _ kernel: (UnsafeMutablePointer<tck_queries>) -> Void
    ) {
        let workspace = GuardedWorkspace(dimensions)
        guardedMaxima.withMutablePointer { maxima in
            guardedSums.withMutablePointer { sums in
                guardedOutputs.withMutablePointer { outputs in
                    queries.rows.withUnsafeBufferPointer { rows in
                        queries.keptRows.withUnsafeBufferPointer { keptRows in
                            queries.offsets.withUnsafeBufferPointer { offsets in
                                queries.visible.withUnsafeBufferPointer { visible in
                                    var description = tck_queries(
                                        count: queries.count,
                                        rows: rows.baseAddress,
                                        kept_rows: keptRows.baseAddress,
                                        offsets: offsets.baseAddress,
                                        visible: visible.baseAddress,
                                        soft_cap: queries.softCap,
                                        is_precise: isPrecise,
                                        maxima: maxima.assumingMemoryBound(to: Float.self),
                                        sums: sums.assumingMemoryBound(to: Float.self),
                                        outputs: outputs.assumingMemoryBound(to: Float.self),
                                        workspace: workspace.start
                                    )
                                    kernel(&description)
                                }
                            }
                        }
                    }
                }
            }
        }
        workspaceIsIntact = workspaceIsIntact && workspace.marginsAreIntact
    }

    mutating func attend(
        _ queries: AttentionQueries,
        blocks: AttentionBlocks,
        isPrecise: Bool = true,
        with set: KernelSet
    ) {
        var format = blocks.plan.format
        attend(queries, isPrecise: isPrecise) { queries in
            blocks.bytes.withUnsafeBytes {
                let count = blocks.blockCount
                // Any memory will do as what comes next.
                set.kernels.attend_blocks(&format, $0.baseAddress, count, queries, $0.baseAddress, $0.count)
            }
        }
    }

    mutating func attend(_ queries: AttentionQueries, keys: SampleRows, values: SampleRows, with set: KernelSet) {
        attend(queries) { queries in
            keys.withRows { keyRows in
                values.withRows { valueRows in
                    let (keyDimension, valueDimension) = (keys.headDimension, values.headDimension)
                    set.kernels.attend_rows(keyRows, valueRows, keys.tokens, keyDimension, valueDimension, queries)
                }
            }
        }
    }
}

/// A workspace that is aligned as kernels want it, holds NaN and has guarded bytes around.
private final class GuardedWorkspace {
    private let memory: UnsafeMutableRawBufferPointer
    private let count: Int

    init(_ dimensions: HeadDimensions) {
        count = tck_attention_workspace_bytes(dimensions.keys, dimensions.values)
        memory = .allocate(byteCount: count + 2 * GuardedBytes.margin, alignment: 64)
        memory.initializeMemory(as: UInt8.self, repeating: GuardedBytes.filler)
        UnsafeMutableRawBufferPointer(start: start, count: count).initializeMemory(as: UInt8.self, repeating: 0xFF)
    }

    deinit { memory.deallocate() }

    var start: UnsafeMutableRawPointer { memory.baseAddress! + GuardedBytes.margin }

    var marginsAreIntact: Bool {
        memory[..<GuardedBytes.margin].allSatisfy { $0 == GuardedBytes.filler }
            && memory[(GuardedBytes.margin + count)...].allSatisfy { $0 == GuardedBytes.filler }
    }
}

extension GuardedBytes {
    init(floats: [Float]) {
        self.init(count: floats.count * 4)
        withMutablePointer { bytes in
            floats.withUnsafeBytes { bytes.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        }
    }

    var floats: [Float] {
        bytes.withUnsafeBytes { bytes in
            (0..<bytes.count / 4).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
        }
    }
}
