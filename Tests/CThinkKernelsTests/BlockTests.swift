import CThinkKernels
import ComputeRuntime
import TestSupport
import Testing

/// A quantized run of keys, or a block's values, and whether the kernel took them.
struct PackedGroups: Equatable {
    var isQuantized: Bool
    var codes: GuardedBytes
    var scales: GuardedBytes
    var minima: GuardedBytes

    var marginsAreIntact: Bool { codes.marginsAreIntact && scales.marginsAreIntact && minima.marginsAreIntact }

    /// Zeroed parameters of the sizes given, to be filled by `body`.
    init(codeBytes: Int, parameters: Int, shift: Int, body: (tck_mutable_packed) -> Bool) {
        var codes = GuardedBytes(count: codeBytes, shift: shift)
        var scales = GuardedBytes(count: parameters * 2)
        var minima = GuardedBytes(count: parameters * 2)
        isQuantized = codes.withMutablePointer { codes in
            scales.withMutablePointer { scales in
                minima.withMutablePointer { minima in
                    body(
                        tck_mutable_packed(
                            codes: codes.assumingMemoryBound(to: UInt8.self),
                            scales: scales,
                            minima: minima
                        )
                    )
                }
            }
        }
        self.codes = codes
        self.scales = scales
        self.minima = minima
    }

    func withPacked(_ body: (tck_packed) -> Void) {
        codes.withPointer { codes in
            scales.withPointer { scales in
                minima.withPointer { minima in
                    body(
                        tck_packed(
                            codes: codes.assumingMemoryBound(to: UInt8.self),
                            scales: scales,
                            minima: minima
                        )
                    )
                }
            }
        }
    }
}

/// A run of keys, or values in groups, and what is done with either.
enum BlockKind: Sendable, CustomStringConvertible {
    case keys(channels: [UInt16])
    case values(group: Int)

    var description: String {
        switch self {
        case .keys(let channels): "keys of \(channels.count) channels"
        case .values(let group): "values in groups of \(group)"
        }
    }

    func packed(
        _ rows: SampleRows,
        width: UInt32,
        ranges: tck_range_rule = TCK_LEAST_TO_GREATEST,
        shift: Int = 0,
        with set: KernelSet
    ) -> PackedGroups {
        let (tokens, headDimension) = (rows.tokens, rows.headDimension)
        let coding = tck_coding(width: width, ranges: ranges)
        return rows.withRows { source in
            PackedGroups(
                codeBytes: codeBytes(rows, width: width),
                parameters: groupCount(rows),
                shift: shift
            ) { destination in
                switch self {
                case .keys(let channels):
                    withChannels(channels) {
                        tck_pack_keys(set.table, source, tokens, $0, headDimension, coding, destination)
                    }
                case .values(let group):
                    tck_pack_values(set.table, source, tokens, headDimension, group, coding, destination)
                }
            }
        }
    }

    private func codeBytes(_ rows: SampleRows, width: UInt32) -> Int {
        switch self {
        case .keys(let channels): tck_key_code_bytes(rows.tokens, channels.count, width)
        case .values: tck_value_code_bytes(rows.tokens, rows.headDimension, width)
        }
    }

    /// Groups, those of missing channels included.
    func groupCount(_ rows: SampleRows) -> Int {
        switch self {
        case .keys(let channels): tck_padded_channels(channels.count)
        case .values(let group): rows.tokens * tck_value_groups(rows.headDimension, group)
        }
    }

    /// The groups' ranges; nil where a number can't be quantized.
    func ranges(_ rows: SampleRows, with set: KernelSet) -> GroupRanges? {
        var minima = GuardedBytes(count: groupCount(rows) * 4)
        var maxima = minima
        let areWithin = minima.withMutablePointer { minima in
            maxima.withMutablePointer { maxima in
                let (low, high) = (
                    minima.assumingMemoryBound(to: Float.self), maxima.assumingMemoryBound(to: Float.self)
                )
                return rows.withRows { source in
                    switch self {
                    case .keys(let channels):
                        withChannels(channels) {
                            set.kernels.key_ranges(source, rows.tokens, $0, rows.headDimension, low, high)
                        }
                    case .values(let group):
                        set.kernels.value_ranges(source, rows.tokens, rows.headDimension, group, low, high)
                    }
                }
            }
        }
        return areWithin ? GroupRanges(minima: minima, maxima: maxima) : nil
    }

    /// Codes by any minima and inverse scales.
    func codes(
        _ rows: SampleRows,
        width: UInt32,
        minima: [Float],
        inverseScales: [Float],
        with set: KernelSet
    ) -> GuardedBytes {
        var codes = GuardedBytes(count: codeBytes(rows, width: width), shift: 1)
        codes.withMutablePointer { bytes in
            let to = bytes.assumingMemoryBound(to: UInt8.self)
            let (tokens, headDimension) = (rows.tokens, rows.headDimension)
            rows.withRows { source in
                switch self {
                case .keys(let channels):
                    withChannels(channels) {
                        set.kernels.pack_keys(source, tokens, $0, headDimension, width, minima, inverseScales, to)
                    }
                case .values(let group):
                    set.kernels.pack_values(
                        source,
                        tokens,
                        headDimension,
                        group,
                        width,
                        minima,
                        inverseScales,
                        to
                    )
                }
            }
        }
        return codes
    }

    /// The rows that the block restores to; what is not written stays GuardedBytes' filler.
    func restored(
        _ block: PackedGroups,
        tokens: Int,
        headDimension: Int,
        width: UInt32,
        as type: ElementType,
        padding: Int = 0,
        with set: KernelSet
    ) -> GuardedBytes {
        let (stride, coding) = (headDimension * type.byteCount + padding, tck_coding(width: width))
        var rows = GuardedBytes(count: stride * tokens, shift: padding % 4)
        rows.withMutablePointer { bytes in
            let destination = tck_mutable_rows(bytes: bytes, token_stride: stride, type: type.tag)
            block.withPacked { source in
                switch self {
                case .keys(let channels):
                    withChannels(channels) {
                        set.kernels.unpack_keys(source, tokens, $0, headDimension, coding, destination)
                    }
                case .values(let group):
                    set.kernels.unpack_values(source, tokens, headDimension, group, coding, destination)
                }
            }
        }
        return rows
    }
}

/// The least and greatest numbers of groups.
struct GroupRanges: Equatable {
    var minima: GuardedBytes
    var maxima: GuardedBytes

    var marginsAreIntact: Bool { minima.marginsAreIntact && maxima.marginsAreIntact }
}

@Suite("Block kernels of vector instruction sets")
struct VectorBlockTests {
    @Test("Packing gives the bytes of scalar", arguments: KernelSet.vectorSets, ElementType.allCases)
    func packs(set: KernelSet, type: ElementType) {
        forEachBlock(type) { rows, kind, width, seed, pattern in
            for ranges in [TCK_LEAST_TO_GREATEST, TCK_FITTED_RANGES] {
                let expected = kind.packed(rows, width: width, ranges: ranges, shift: seed % 5, with: .scalar)
                let block = kind.packed(rows, width: width, ranges: ranges, shift: seed % 5, with: set)
                #expect(block.marginsAreIntact)
                if expected.isQuantized {
                    if block != expected {
                        Issue.record("\(kind), \(pattern), width \(width), \(rows.tokens) x \(rows.headDimension)")
                    }
                } else {
                    #expect(!block.isQuantized, "\(kind), \(pattern), \(rows.tokens) x \(rows.headDimension)")
                }
            }
        }
    }

    @Test("Ranges have the bits of scalar", arguments: KernelSet.vectorSets, ElementType.allCases)
    func findsRanges(set: KernelSet, type: ElementType) {
        forEachBlock(type) { rows, kind, width, _, pattern in
            let expected = kind.ranges(rows, with: .scalar)
            let ranges = kind.ranges(rows, with: set)
            if ranges != expected || ranges?.marginsAreIntact == false {
                Issue.record("\(kind), \(pattern), width \(width), \(rows.tokens) x \(rows.headDimension)")
            }
        }
    }

    @Test("Codes by any ranges are those of scalar", arguments: KernelSet.vectorSets, ElementType.allCases)
    func packsByRanges(set: KernelSet, type: ElementType) {
        forEachBlock(type) { rows, kind, width, seed, pattern in
            guard !pattern.isRefused else { return }
            // Ranges that are narrower and wider than the numbers': codes are clamped at both ends.
            var minima = NormalNumbers.slice(count: kind.groupCount(rows), seed: seed).map { $0 * 4 }
            var inverses = NormalNumbers.slice(count: kind.groupCount(rows), seed: seed + 1).map { abs($0) }
            if case .keys(let channels) = kind {
                for missing in channels.count..<minima.count { (minima[missing], inverses[missing]) = (0, 0) }
            }
            let codes = [KernelSet.scalar, set].map {
                kind.codes(rows, width: width, minima: minima, inverseScales: inverses, with: $0)
            }
            if codes[0] != codes[1] || !codes[1].marginsAreIntact {
                Issue.record("\(kind), \(pattern), width \(width), \(rows.tokens) x \(rows.headDimension)")
            }
        }
    }

    @Test(
        "Scales of any number of groups have the bits of scalar, also in the arrays of the ranges",
        arguments: KernelSet.vectorSets,
        sampleWidths
    )
    func encodesScales(set: KernelSet, width: UInt32) {
        for count in sampleCounts {
            let starts = NormalNumbers.slice(count: count, seed: count).map { $0 * 30 + 0 }
            let spans = NormalNumbers.slice(count: count, seed: count + 1)
            // Some ranges are empty, some so small that their scales are subnormal or zero.
            let ends = zip(starts, spans).enumerated().map { index, range in
                range.0 + abs(range.1) * [1, 0, 1e-7, 1000][index % 4]
            }
            let expected = EncodedScales(minima: starts, maxima: ends, width: width, inPlace: false, with: .scalar)
            for inPlace in [false, true] {
                let encoded = EncodedScales(minima: starts, maxima: ends, width: width, inPlace: inPlace, with: set)
                #expect(encoded == expected && encoded.marginsAreIntact, "\(count) groups, in place: \(inPlace)")
            }
        }
    }

    @Test(
        "Restoring gives the bytes of scalar and leaves others alone",
        arguments: KernelSet.vectorSets,
        ElementType.allCases
    )
    func restores(set: KernelSet, type: ElementType) {
        forEachBlock(.float32) { rows, kind, width, seed, pattern in
            guard !pattern.isRefused else { return }
            let block = kind.packed(rows, width: width, shift: seed % 5, with: .scalar)
            let restored = [KernelSet.scalar, set].map {
                kind.restored(
                    block,
                    tokens: rows.tokens,
                    headDimension: rows.headDimension,
                    width: width,
                    as: type,
                    padding: seed % 7,
                    with: $0
                )
            }
            #expect(restored[1].marginsAreIntact)
            if restored[0] != restored[1] {
                Issue.record("\(kind), \(pattern), width \(width), \(rows.tokens) x \(rows.headDimension)")
            }
        }
    }

    @Test("Any bytes at all restore as in scalar", arguments: KernelSet.vectorSets)
    func restoresAnyBytes(set: KernelSet) {
        for (seed, type) in ElementType.allCases.enumerated() {
            for kind in [BlockKind.keys(channels: sampleChannels(headDimension: 80, seed: seed)), .values(group: 32)] {
                var generator = SplitMix64(seed: UInt64(seed))
                let block = PackedGroups(codeBytes: 32 * 80, parameters: 32 * 3, shift: 0) { destination in
                    let scales = destination.scales.assumingMemoryBound(to: UInt16.self)
                    let minima = destination.minima.assumingMemoryBound(to: UInt16.self)
                    for i in 0..<32 * 80 { destination.codes[i] = .random(in: 0...255, using: &generator) }
                    for i in 0..<32 * 3 {
                        scales[i] = .random(in: 0...0xFFFF, using: &generator)
                        minima[i] = .random(in: 0...0xFFFF, using: &generator)
                    }
                    // Infinity times zero, NaN, and a minimum of negative zero.
                    for i in 0..<8 { scales[i] = [0x7C00, 0xFC00, 0x7E00, 0xFE01, 0x7C01, 0, 0x8000, 1][i] }
                    minima[5] = 0x8000
                    return true
                }
                let restored = [KernelSet.scalar, set].map {
                    kind.restored(block, tokens: 32, headDimension: 80, width: 2, as: type, with: $0)
                }
                #expect(restored[0] == restored[1], "\(kind) as \(type)")
            }
        }
    }

    @Test("The widest rows give the bytes of scalar", arguments: KernelSet.vectorSets)
    func packsWidestRows(set: KernelSet) {
        let widest = Int(TCK_MAX_HEAD_DIMENSION)
        let rows = SampleRows(.ordinary, type: .float16, tokens: 32, headDimension: widest, seed: 1)
        for kind in [BlockKind.keys(channels: sampleChannels(headDimension: widest, seed: 1)), .values(group: 128)] {
            let block = kind.packed(rows, width: 4, with: .scalar)
            #expect(kind.packed(rows, width: 4, with: set) == block)
            let restored = [KernelSet.scalar, set].map {
                kind.restored(block, tokens: 32, headDimension: widest, width: 4, as: .float16, with: $0)
            }
            #expect(restored[0] == restored[1])
        }
    }

    /// Calls with blocks of every shape, width and pattern, though not with each combination of them.
    private func forEachBlock(
        _ type: ElementType,
        _ body: (SampleRows, BlockKind, UInt32, _ seed: Int, Pattern) -> Void
    ) {
        var seed = 0
        for headDimension in sampleHeadDimensions {
            for pattern in Pattern.allCases {
                seed += 1
                let tokens = sampleBlockLengths[seed % 3]
                let rows = SampleRows(pattern, type: type, tokens: tokens, headDimension: headDimension, seed: seed)
                for (index, width) in sampleWidths.enumerated() {
                    let channels = sampleChannels(headDimension: headDimension, seed: seed + index)
                    body(rows, .keys(channels: channels), width, seed, pattern)
                    body(rows, .values(group: sampleBlockLengths[(seed + index) % 3]), width, seed, pattern)
                }
            }
        }
    }
}

/// What encode_scales makes of ranges.
private struct EncodedScales: Equatable {
    private var scales: GuardedBytes
    private var minima: GuardedBytes
    private var minimumValues: GuardedBytes
    private var inverseScales: GuardedBytes

    var marginsAreIntact: Bool {
        scales.marginsAreIntact && minima.marginsAreIntact && minimumValues.marginsAreIntact
            && inverseScales.marginsAreIntact
    }

    /// - Parameter inPlace: whether the results in float32 take the place of the ranges.
    init(minima low: [Float], maxima high: [Float], width: UInt32, inPlace: Bool, with set: KernelSet) {
        var scales = GuardedBytes(count: low.count * 2)
        var minima = scales
        var values = GuardedBytes(floats: low)
        var inverses = GuardedBytes(floats: high)
        scales.withMutablePointer { scales in
            minima.withMutablePointer { minima in
                values.withMutablePointer { values in
                    inverses.withMutablePointer { inverses in
                        let (values, inverses) = (
                            values.assumingMemoryBound(to: Float.self), inverses.assumingMemoryBound(to: Float.self)
                        )
                        let quantizers = tck_quantizers(
                            scales: scales,
                            minima: minima,
                            minimum_values: values,
                            inverse_scales: inverses
                        )
                        let coding = tck_coding(width: width)
                        if inPlace {
                            set.kernels.encode_scales(coding, low.count, values, inverses, quantizers)
                        } else {
                            set.kernels.encode_scales(coding, low.count, low, high, quantizers)
                        }
                    }
                }
            }
        }
        self.scales = scales
        self.minima = minima
        minimumValues = values
        inverseScales = inverses
    }
}
