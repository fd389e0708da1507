import CThinkKernels
import ComputeRuntime

#if canImport(Darwin)
    import Darwin
#else
    import Glibc
#endif

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
        return (0..<count).map { _ in
            let radius = (-2 * log(Double.random(in: .leastNonzeroMagnitude...1, using: &generator))).squareRoot()
            return Float(radius * cos(Double.random(in: 0..<2 * .pi, using: &generator)))
        }
    }
}

// MARK: - Blocks

/// What the blocks of a head hold, and where; width 0 stands for full precision.
struct AttentionPlan: CustomStringConvertible {
    struct KeyRun {
        var width: UInt32
        var channels: [UInt16]
    }

    let headDimension: Int
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
        headDimension: Int,
        blockTokens: Int,
        type: ElementType,
        keyWidths: [UInt32],
        keptChannels: Int,
        valueWidth: UInt32,
        hasValuesFirst: Bool = false,
        seed: Int = 0
    ) {
        var generator = SplitMix64(seed: UInt64(seed))
        let channels = (0..<UInt16(headDimension)).shuffled(using: &generator).prefix(keptChannels)
        let runCount = min(keyWidths.count, channels.count)
        let runs = (0..<runCount).map { index in
            KeyRun(
                width: keyWidths[index],
                channels: Array(channels[channels.count * index / runCount..<channels.count * (index + 1) / runCount])
            )
        }
        self.headDimension = headDimension
        self.blockTokens = blockTokens
        self.type = type
        self.valueWidth = valueWidth
        keyRuns = runs

        var format = tck_block_format()
        format.tokens = blockTokens
        format.head_dimension = headDimension
        format.full_type = type.tag
        format.value_width = valueWidth
        format.key_run_count = runs.count
        if hasValuesFirst { Self.placeValues(in: &format) }
        Self.placeKeys(runs, in: &format)
        if !hasValuesFirst { Self.placeValues(in: &format) }
        self.format = format
    }

    /// Appends codes, scales and minima of all runs. Nothing is padded: the format says where parts lie.
    private static func placeKeys(_ runs: [KeyRun], in format: inout tck_block_format) {
        var places = runs.map { tck_key_run(count: $0.channels.count, width: $0.width, codes: 0, scales: 0, minima: 0) }
        func place(_ part: WritableKeyPath<tck_key_run, Int>, _ byteCount: (tck_key_run) -> Int) {
            for index in places.indices {
                places[index][keyPath: part] = format.byte_count
                format.byte_count += byteCount(places[index])
            }
        }
        let (tokens, elementBytes) = (format.tokens, format.elementBytes)
        place(\.codes) {
            $0.width == 0 ? $0.count * tokens * elementBytes : tck_key_code_bytes(tokens, $0.count, $0.width)
        }
        place(\.scales) { $0.width == 0 ? 0 : 2 * tck_padded_channels($0.count) }
        place(\.minima) { $0.width == 0 ? 0 : 2 * tck_padded_channels($0.count) }
        withUnsafeMutableBytes(of: &format.key_runs) { bytes in
            let slots = bytes.bindMemory(to: tck_key_run.self)
            for (index, run) in places.enumerated() { slots[index] = run }
        }
    }

    private static func placeValues(in format: inout tck_block_format) {
        format.value_codes = format.byte_count
        if format.value_width == 0 {
            format.byte_count += format.tokens * format.head_dimension * format.elementBytes
        } else {
            let parameterBytes = 2 * format.tokens * tck_value_groups(format.head_dimension, format.tokens)
            format.value_scales =
                format.value_codes + tck_value_code_bytes(format.tokens, format.head_dimension, format.value_width)
            format.value_minima = format.value_scales + parameterBytes
            format.byte_count = format.value_minima + parameterBytes
        }
    }

    var keptChannels: [UInt16] { keyRuns.flatMap(\.channels) }

    var isFullPrecision: Bool { valueWidth == 0 && keyRuns.allSatisfy { $0.width == 0 } }

    /// What a kernel of a vector set may differ by from scalar.
    func bound(isPrecise: Bool) -> Double {
        isFullPrecision ? AttentionBound.full : isPrecise ? AttentionBound.precise : AttentionBound.fast
    }

    var description: String {
        let keys = keyRuns.map { "\($0.channels.count) at \($0.width)" }.joined(separator: ", ")
        return "keys \(keys), values \(headDimension) at \(valueWidth), \(type), blocks of \(blockTokens)"
    }
}

extension tck_block_format {
    fileprivate var elementBytes: Int { full_type == TCK_FLOAT32 ? 4 : 2 }

    /// The runs in use.
    fileprivate var runs: [tck_key_run] {
        withUnsafeBytes(of: key_runs) { Array($0.bindMemory(to: tck_key_run.self).prefix(key_run_count)) }
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
        let blockElements = plan.blockTokens * plan.headDimension
        let count = blockCount * blockElements
        var keyValues = Array(NormalNumbers.slice(count: count, seed: seed))
        if hasConstantKeys {
            keyValues = (0..<count).map { keyValues[$0 / blockElements * blockElements + $0 % plan.headDimension] }
        }
        let keys = plan.type.encode(keyValues)
        let values = plan.type.encode(randomValues(count: count, headDimension: plan.headDimension, seed: seed + 1))
        let kernels = (KernelSet.vectorSets.first ?? .scalar).kernels
        let (tokens, dimension, type) = (plan.blockTokens, plan.headDimension, plan.type)
        let (format, runs) = (plan.format, plan.keyRuns)
        let rowBytes = dimension * type.byteCount
        var bytes = [UInt8](repeating: 0, count: blockCount * format.byte_count)
        bytes.withUnsafeMutableBytes { bytes in
            for index in 0..<blockCount {
                let block = bytes.baseAddress! + index * format.byte_count
                func rows(_ source: UnsafeRawBufferPointer) -> tck_rows {
                    let start = source.baseAddress! + index * tokens * rowBytes
                    return tck_rows(bytes: start, token_stride: rowBytes, type: type.tag)
                }
                keys.withUnsafeBytes { keys in
                    for (run, place) in zip(runs, format.runs) {
                        withChannels(run.channels) { channels in
                            if place.width == 0 {
                                kernels.pack_full_keys(rows(keys), tokens, channels, block + place.codes)
                            } else {
                                let to = packed(block, place.codes, place.scales, place.minima)
                                _ = kernels.pack_keys(rows(keys), tokens, channels, dimension, place.width, to)
                            }
                        }
                    }
                }
                values.withUnsafeBytes { values in
                    if format.value_width == 0 {
                        let source = rows(values)
                        (block + format.value_codes).copyMemory(from: source.bytes, byteCount: tokens * rowBytes)
                    } else {
                        let to = packed(block, format.value_codes, format.value_scales, format.value_minima)
                        _ = kernels.pack_values(rows(values), tokens, dimension, tokens, format.value_width, to)
                    }
                }
            }
        }
        self.bytes = bytes
    }

    /// The keys of the kept channels and the values, restored by scalar: `[tokens][channels]`.
    func restored() -> (keys: [Float], values: [Float]) {
        let kernels = KernelSet.scalar.kernels
        let (format, dimension, kept) = (plan.format, plan.headDimension, plan.keptChannels.count)
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
                let block = UnsafeMutableRawPointer(mutating: bytes.baseAddress! + index * format.byte_count)
                var first = 0
                for run in format.runs {
                    let to = rows(&keys, channels: kept, from: first, block: index)
                    withChannels((0..<run.count).map(UInt16.init)) { channels in
                        if run.width == 0 {
                            kernels.unpack_full_keys(
                                format.full_type,
                                block + run.codes,
                                plan.blockTokens,
                                channels,
                                to
                            )
                        } else {
                            let from = tck_packed(packed(block, run.codes, run.scales, run.minima))
                            kernels.unpack_keys(from, plan.blockTokens, channels, run.count, run.width, to)
                        }
                    }
                    first += run.count
                }
                let to = rows(&values, channels: dimension, from: 0, block: index)
                if format.value_width == 0 {
                    let count = plan.blockTokens * dimension
                    let floats = to.bytes!.assumingMemoryBound(to: Float.self)
                    kernels.widen(format.full_type, block + format.value_codes, count, floats)
                } else {
                    let from = tck_packed(packed(block, format.value_codes, format.value_scales, format.value_minima))
                    let (tokens, width) = (plan.blockTokens, format.value_width)
                    kernels.unpack_values(from, tokens, dimension, tokens, width, to)
                }
            }
        }
        return (keys, values)
    }
}

/// Where a block's parts lie, in bytes from its begin.
private func packed(
    _ block: UnsafeMutableRawPointer,
    _ codes: Int,
    _ scales: Int,
    _ minima: Int
) -> tck_mutable_packed {
    tck_mutable_packed(
        codes: (block + codes).assumingMemoryBound(to: UInt8.self),
        scales: (block + scales).assumingMemoryBound(to: UInt16.self),
        minima: (block + minima).assumingMemoryBound(to: UInt16.self)
    )
}

extension tck_packed {
    fileprivate init(_ packed: tck_mutable_packed) {
        self.init(codes: packed.codes, scales: packed.scales, minima: packed.minima)
    }
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
    let headDimension: Int
    /// The kernels' arrays: see tck_queries.
    private(set) var rows: [Float]
    private(set) var thinRows: [Float]
    var offsets: [Float]
    var visible: [tck_token_range]
    var softCap: Float = 0

    init(count: Int, plan: AttentionPlan, seed: Int) {
        self.count = count
        headDimension = plan.headDimension
        let padded = tck_padded_dimension(plan.headDimension)
        var format = plan.format
        let thin = tck_thin_dimension(&format)
        rows = [Float](repeating: 0, count: Int(TCK_QUERY_ROWS) * padded)
        thinRows = [Float](repeating: 0, count: Int(TCK_QUERY_ROWS) * thin)
        // No slice: a query that is one of the keys would have eyes for that only.
        let numbers = NormalNumbers.fresh(count: count * plan.headDimension, seed: seed)
        let scale = 1.5 / Float(plan.headDimension).squareRoot()
        for row in 0..<count {
            for channel in 0..<plan.headDimension {
                rows[row * padded + channel] = numbers[row * plan.headDimension + channel] * scale
            }
            var start = row * thin
            for run in plan.keyRuns {
                for (index, channel) in run.channels.enumerated() {
                    thinRows[start + index] = rows[row * padded + Int(channel)]
                }
                start += tck_padded_dimension(run.channels.count)
            }
        }
        offsets = (0..<Int(TCK_QUERY_ROWS)).map { Float($0) - 1.5 }
        visible = Array(repeating: tck_token_range(first: 0, end: Int(TCK_TILE_TOKENS)), count: Int(TCK_QUERY_ROWS))
    }

    func value(row: Int, channel: Int) -> Float { rows[row * tck_padded_dimension(headDimension) + channel] }
}

/// What attention over the tiles so far has given, for all TCK_QUERY_ROWS rows, with guarded memory around it.
struct AttentionState: Equatable {
    let headDimension: Int
    private var guardedMaxima: GuardedBytes
    private var guardedSums: GuardedBytes
    private var guardedOutputs: GuardedBytes
    private var workspaceIsIntact = true

    init(headDimension: Int) {
        self.headDimension = headDimension
        let rows = Int(TCK_QUERY_ROWS)
        guardedMaxima = GuardedBytes(floats: Array(repeating: -.infinity, count: rows))
        guardedSums = GuardedBytes(floats: Array(repeating: 0, count: rows))
        guardedOutputs = GuardedBytes(floats: Array(repeating: 0, count: rows * tck_padded_dimension(headDimension)))
    }

    var marginsAreIntact: Bool {
        workspaceIsIntact && guardedMaxima.marginsAreIntact && guardedSums.marginsAreIntact
            && guardedOutputs.marginsAreIntact
    }

    /// Everything that attention has given for a row, bit for bit.
    func numbers(row: Int) -> [UInt32] {
        let padded = tck_padded_dimension(headDimension)
        let outputs = guardedOutputs.floats[row * padded..<row * padded + headDimension]
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
        let padded = tck_padded_dimension(headDimension)
        return guardedOutputs.floats[row * padded..<row * padded + headDimension].map { Double($0) / Double(sum) }
    }

    /// Calls a kernel with the queries and this state.
    mutating func attend(
        _ queries: AttentionQueries,
        isPrecise: Bool = true,
        _ kernel: (UnsafeMutablePointer<tck_queries>) -> Void
    ) {
        let workspace = GuardedWorkspace(headDimension: headDimension)
        guardedMaxima.withMutablePointer { maxima in
            guardedSums.withMutablePointer { sums in
                guardedOutputs.withMutablePointer { outputs in
                    queries.rows.withUnsafeBufferPointer { rows in
                        queries.thinRows.withUnsafeBufferPointer { thinRows in
                            queries.offsets.withUnsafeBufferPointer { offsets in
                                queries.visible.withUnsafeBufferPointer { visible in
                                    var description = tck_queries(
                                        count: queries.count,
                                        rows: rows.baseAddress,
                                        thin_rows: thinRows.baseAddress,
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
                    set.kernels.attend_rows(keyRows, valueRows, keys.tokens, keys.headDimension, queries)
                }
            }
        }
    }
}

/// A workspace that is aligned as kernels want it, holds NaN and has guarded bytes around.
private final class GuardedWorkspace {
    private let memory: UnsafeMutableRawBufferPointer
    private let count: Int

    init(headDimension: Int) {
        count = tck_attention_workspace_bytes(headDimension)
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
