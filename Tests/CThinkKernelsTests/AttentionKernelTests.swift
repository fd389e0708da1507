import CThinkKernels
import Testing

private let sampleKeyWidths: [[UInt32]] = [[2], [4], [8], [0], [2, 4], [2, 0], [8, 2, 4, 0]]
private let sampleValueWidths: [UInt32] = [2, 4, 8, 0]

/// How many key channels a sample keeps, so that quads, lanes and lines have tails of many kinds.
private func keptChannels(of keyDimension: Int, seed: Int) -> Int {
    let counts = [keyDimension, (keyDimension * 3 + 4) / 5, 77, 3, 1]
    return min(counts[seed % counts.count], keyDimension)
}

/// Ranges of visible tokens that change from query to query.
private func visibleRanges(tokens: Int, seed: Int) -> [tck_token_range] {
    let ranges = [
        tck_token_range(first: 0, end: tokens),
        tck_token_range(first: tokens / 3, end: tokens),
        tck_token_range(first: 0, end: tokens - tokens / 5),
        tck_token_range(first: tokens / 2, end: tokens / 2 + 1),
        tck_token_range(first: 0, end: Int(TCK_PAGE_TOKENS)),
        tck_token_range(first: tokens / 4 + 1, end: tokens / 4 + 1),
    ]
    return (0..<Int(TCK_QUERY_ROWS)).map { ranges[(seed + $0) % ranges.count] }
}

/// Blocks and queries for them.
private struct AttentionSample {
    var blocks: AttentionBlocks
    var queries: AttentionQueries

    init(_ plan: AttentionPlan, blockCount: Int, queryCount: Int, seed: Int) {
        blocks = AttentionBlocks(plan, blockCount: blockCount, seed: seed)
        queries = AttentionQueries(count: queryCount, plan: plan, seed: seed + 2)
    }

    func state(isPrecise: Bool = true, with set: KernelSet) -> AttentionState {
        var state = AttentionState(blocks.plan.dimensions)
        state.attend(queries, blocks: blocks, isPrecise: isPrecise, with: set)
        return state
    }

    func reference() -> ReferenceTiles {
        var reference = ReferenceTiles(queryCount: queries.count, valueDimension: blocks.plan.valueDimension)
        reference.add(blocks, queries: queries)
        return reference
    }
}

/// One sample of every combination of widths, whose other properties change from one to the next.
private func forEachSample(_ dimensions: HeadDimensions, blockTokens: Int, body: (AttentionSample) -> Void) {
    let most = Int(TCK_PAGE_TOKENS) / blockTokens
    for (keyIndex, keyWidths) in sampleKeyWidths.enumerated() {
        for (valueIndex, valueWidth) in sampleValueWidths.enumerated() {
            let seed = dimensions.keys + blockTokens / 32 + keyIndex * 5 + valueIndex * 3
            let plan = AttentionPlan(
                dimensions: dimensions,
                blockTokens: blockTokens,
                type: ElementType.allCases[seed % 3],
                keyWidths: keyWidths,
                keptChannels: keptChannels(of: dimensions.keys, seed: seed),
                valueWidth: valueWidth,
                hasValuesFirst: seed % 2 == 0,
                seed: seed
            )
            var sample = AttentionSample(plan, blockCount: seed % most + 1, queryCount: seed / 3 % 4 + 1, seed: seed)
            sample.queries.visible = visibleRanges(tokens: sample.blocks.tokens, seed: seed)
            sample.queries.softCap = seed % 4 == 0 ? 3 : 0
            body(sample)
        }
    }
}

/// Every kernel but scalar, in both modes.
private struct VectorMode: Sendable, CustomStringConvertible {
    let set: KernelSet
    let isPrecise: Bool

    static let all = KernelSet.vectorSets.flatMap { set in [true, false].map { VectorMode(set: set, isPrecise: $0) } }

    var description: String { "\(set.name), \(isPrecise ? "precise" : "fast")" }
}

@Suite("Attention kernels over blocks")
struct BlockAttentionTests {
    @Test("Scalar is float64 attention over restored keys and values", arguments: HeadDimensions.samples)
    func scalar(dimensions: HeadDimensions) {
        forEachSample(dimensions, blockTokens: dimensions.keys % 64 == 0 ? 64 : 32) { sample in
            let state = sample.state(with: .scalar)
            let reference = sample.reference()
            let rows = sample.queries.count
            let error = largestError(state.output, against: reference.output, rows: rows)
            #expect(error <= AttentionBound.full, "\(sample.blocks.plan)")
            #expect(state.marginsAreIntact)
        }
    }

    @Test("Vector sets agree with scalar", arguments: HeadDimensions.samples, sampleBlockLengths)
    func vectors(dimensions: HeadDimensions, blockTokens: Int) {
        forEachSample(dimensions, blockTokens: blockTokens) { sample in
            let expected = sample.state(with: .scalar)
            let start = AttentionState(dimensions)
            for mode in VectorMode.all {
                let state = sample.state(isPrecise: mode.isPrecise, with: mode.set)
                let plan = sample.blocks.plan
                let error = largestError(state.output, against: expected.output, rows: sample.queries.count)
                #expect(error <= plan.bound(isPrecise: mode.isPrecise), "\(mode), \(plan)")
                #expect(state.marginsAreIntact, "\(mode), \(plan)")
                for row in sample.queries.count..<Int(TCK_QUERY_ROWS) {
                    #expect(state.numbers(row: row) == start.numbers(row: row), "\(mode), \(plan), row \(row)")
                }
            }
        }
    }

    @Test("The widest heads", arguments: [2, 0] as [UInt32], [32, 128])
    func widest(width: UInt32, blockTokens: Int) {
        let plan = AttentionPlan(
            dimensions: HeadDimensions(Int(TCK_MAX_HEAD_DIMENSION)),
            blockTokens: blockTokens,
            type: .float16,
            keyWidths: [width, 4, 4, width],
            keptChannels: Int(TCK_MAX_HEAD_DIMENSION),
            valueWidth: width
        )
        let sample = AttentionSample(plan, blockCount: 256 / blockTokens, queryCount: 2, seed: 9)
        let expected = sample.state(with: .scalar)
        for mode in VectorMode.all {
            let state = sample.state(isPrecise: mode.isPrecise, with: mode.set)
            let error = largestError(state.output, against: expected.output, rows: 2)
            #expect(error <= plan.bound(isPrecise: mode.isPrecise), "\(mode)")
            #expect(state.marginsAreIntact, "\(mode)")
        }
    }

    /// Of 96 tokens: first and end; none are visible where these are not in order.
    private static let ranges = [
        (0, 0), (7, 7), (200, 100), (96, 256), (0, 1), (95, 96), (40, 41), (17, 18), (1, 96), (33, 96), (0, 95),
        (0, 31), (90, 256),
    ].map { tck_token_range(first: $0.0, end: $0.1) }

    @Test("Only visible tokens count", arguments: ranges)
    func visible(range: tck_token_range) {
        for (index, width) in sampleValueWidths.enumerated() {
            let plan = AttentionPlan(
                dimensions: HeadDimensions(40),
                blockTokens: 32,
                type: .float32,
                keyWidths: [width],
                keptChannels: 40,
                valueWidth: width
            )
            var sample = AttentionSample(plan, blockCount: 3, queryCount: 2, seed: 20 + index)
            sample.queries.visible[0] = range
            let reference = sample.reference()
            let scalar = sample.state(with: .scalar)
            #expect(largestError(scalar.output, against: reference.output, rows: 2) <= AttentionBound.full)
            for mode in VectorMode.all {
                let state = sample.state(isPrecise: mode.isPrecise, with: mode.set)
                let error = largestError(state.output, against: reference.output, rows: 2)
                #expect(error <= plan.bound(isPrecise: mode.isPrecise) + AttentionBound.full, "\(mode), \(width)")
            }
        }
    }

    @Test("A query that sees nothing of a tile keeps its state", arguments: [KernelSet.scalar] + KernelSet.vectorSets)
    func seesNothing(set: KernelSet) {
        for width in sampleValueWidths {
            let plan = AttentionPlan(
                dimensions: HeadDimensions(77),
                blockTokens: 32,
                type: .bfloat16,
                keyWidths: [2, width],
                keptChannels: 77,
                valueWidth: width
            )
            var sample = AttentionSample(plan, blockCount: 2, queryCount: 3, seed: 31)
            for isPrecise in [false, true] {
                sample.queries.visible = Array(repeating: tck_token_range(first: 0, end: 64), count: 4)
                var state = sample.state(isPrecise: isPrecise, with: set)
                let before = state
                sample.queries.visible[0] = tck_token_range(first: 5, end: 5)
                sample.queries.visible[2] = tck_token_range(first: 64, end: 80)
                state.attend(sample.queries, blocks: sample.blocks, isPrecise: isPrecise, with: set)
                #expect(state.numbers(row: 0) == before.numbers(row: 0))
                #expect(state.numbers(row: 1) != before.numbers(row: 1))
                #expect(state.numbers(row: 2) == before.numbers(row: 2))
                #expect(state.numbers(row: 3) == before.numbers(row: 3))
            }
        }
    }

    @Test("Keys that are constant in each block have minima only", arguments: sampleWidths)
    func constantKeys(width: UInt32) {
        let plan = AttentionPlan(
            dimensions: HeadDimensions(64),
            blockTokens: 32,
            type: .float16,
            keyWidths: [width],
            keptChannels: 64,
            valueWidth: 8
        )
        var sample = AttentionSample(plan, blockCount: 8, queryCount: 4, seed: 8)
        sample.blocks = AttentionBlocks(plan, blockCount: 8, seed: 8, hasConstantKeys: true)
        let reference = sample.reference()
        let scalar = sample.state(with: .scalar)
        #expect(largestError(scalar.output, against: reference.output, rows: 4) <= AttentionBound.full)
        for mode in VectorMode.all {
            let state = sample.state(isPrecise: mode.isPrecise, with: mode.set)
            let error = largestError(state.output, against: reference.output, rows: 4)
            #expect(error <= plan.bound(isPrecise: mode.isPrecise), "\(mode)")
        }
    }

    @Test("Scores are bent far beyond the cap and at zero", arguments: [-80, 0, 80] as [Float])
    func bends(offset: Float) {
        let plan = AttentionPlan(
            dimensions: HeadDimensions(64),
            blockTokens: 32,
            type: .float32,
            keyWidths: [0],
            keptChannels: 64,
            valueWidth: 0
        )
        var sample = AttentionSample(plan, blockCount: 4, queryCount: 4, seed: 77)
        sample.queries.softCap = 2.5
        sample.queries.offsets = [offset, offset / 10, offset / 100, -offset]
        let reference = sample.reference()
        for set in [KernelSet.scalar] + KernelSet.vectorSets {
            let state = sample.state(with: set)
            #expect(largestError(state.output, against: reference.output, rows: 4) <= AttentionBound.full, "\(set)")
        }
    }
}

@Suite("Attention kernels over several tiles")
struct TiledAttentionTests {
    /// Scores of what is visible are small: float32 rounds larger ones by more than the bound.
    @Test("Tiles in sequence are one softmax", arguments: [[0, 0, 0], [-3, 2, 0], [0, -300, 1], [-300, -200, 0]])
    func tiles(offsets: [Float]) {
        for (index, widths) in [[2], [4], [0], [2, 0]].enumerated() as EnumeratedSequence<[[UInt32]]> {
            let plan = AttentionPlan(
                dimensions: HeadDimensions(keys: 80, values: 64),
                blockTokens: 32,
                type: .float16,
                keyWidths: widths,
                keptChannels: 77,
                valueWidth: widths[0]
            )
            var samples = offsets.indices.map { tile in
                AttentionSample(plan, blockCount: [8, 5, 1][tile], queryCount: 3, seed: index * 10)
            }
            for tile in samples.indices {
                // The queries are the same; the blocks are not.
                samples[tile].blocks = AttentionBlocks(plan, blockCount: [8, 5, 1][tile], seed: 50 + tile)
                samples[tile].queries.offsets = Array(repeating: offsets[tile], count: 4)
                samples[tile].queries.visible[1].first = 3 * tile
                samples[tile].queries.visible[2].end = tile == 1 ? 0 : 30
            }
            let keys = normalRows(type: .bfloat16, tokens: 41, headDimension: 80, seed: 4)
            let values = normalRows(type: .float16, tokens: 41, headDimension: 64, seed: 5)

            var reference = ReferenceTiles(queryCount: 3, valueDimension: 64)
            for sample in samples { reference.add(sample.blocks, queries: sample.queries) }
            reference.add(keys: keys, values: values, queries: samples[0].queries)

            func error(_ set: KernelSet, isPrecise: Bool) -> Double {
                var state = AttentionState(plan.dimensions)
                for sample in samples {
                    state.attend(sample.queries, blocks: sample.blocks, isPrecise: isPrecise, with: set)
                }
                state.attend(samples[0].queries, keys: keys, values: values, with: set)
                return largestError(state.output, against: reference.output, rows: 3)
            }
            #expect(error(.scalar, isPrecise: true) <= AttentionBound.full, "\(plan)")
            for mode in VectorMode.all {
                let bound = plan.bound(isPrecise: mode.isPrecise)
                #expect(error(mode.set, isPrecise: mode.isPrecise) <= bound, "\(mode), \(plan)")
            }
        }
    }

    @Test("Scores from elsewhere join as those of a kernel", arguments: [1, 16, 31, 32, 33, 200, 256])
    func joinsScores(tokens: Int) {
        let plan = AttentionPlan(
            dimensions: HeadDimensions(keys: 96, values: 40),
            blockTokens: 32,
            type: .float32,
            keyWidths: [0],
            keptChannels: 96,
            valueWidth: 0
        )
        for count in 1...Int(TCK_QUERY_ROWS) {
            var sample = AttentionSample(plan, blockCount: 2, queryCount: count, seed: tokens)
            let before = sample.state(with: .scalar)
            sample.queries.visible = visibleRanges(tokens: tokens, seed: count)
            sample.queries.softCap = count % 2 == 0 ? 3 : 0
            let scores = Array(NormalNumbers.slice(count: Int(TCK_QUERY_ROWS * TCK_PAGE_TOKENS), seed: count))

            func join(_ set: KernelSet) -> (scores: [Float], state: AttentionState) {
                var state = before
                var guarded = GuardedBytes(floats: scores)
                state.attend(sample.queries) { queries in
                    guarded.withMutablePointer {
                        set.kernels.join_scores($0.assumingMemoryBound(to: Float.self), tokens, 40, queries)
                    }
                }
                #expect(guarded.marginsAreIntact && state.marginsAreIntact, "\(set)")
                return (guarded.floats, state)
            }
            let expected = join(.scalar)
            for set in KernelSet.vectorSets {
                let actual = join(set)
                var areClose = true
                for row in 0..<count {
                    let start = row * Int(TCK_PAGE_TOKENS)
                    let range = start..<start + tokens
                    areClose = areClose && isClose(actual.scores[range], expected.scores[range])
                }
                let (floats, expectedFloats) = (actual.state.floats, expected.state.floats)
                let outputs = count * tck_padded_dimension(40)
                areClose = areClose && isClose(floats.maxima[..<count], expectedFloats.maxima[..<count])
                areClose = areClose && isClose(floats.sums[..<count], expectedFloats.sums[..<count])
                areClose = areClose && isClose(floats.outputs[..<outputs], expectedFloats.outputs[..<outputs])
                // Not the arrays themselves, which would fill pages.
                #expect(areClose, "\(set), \(count) queries")
            }
        }
    }

    private func isClose(_ actual: ArraySlice<Float>, _ expected: ArraySlice<Float>) -> Bool {
        // Hidden tokens' powers may be 2^-126 for 0.
        zip(actual, expected).allSatisfy { abs($0 - $1) <= 4e-6 * abs($1) + 1e-30 }
    }
}

@Suite("Attention kernels over rows")
struct RowAttentionTests {
    @Test("Every set is float64 attention", arguments: ElementType.allCases, [0, 1, 5, 255, 256])
    func rows(type: ElementType, tokens: Int) {
        for (index, dimensions) in HeadDimensions.samples.enumerated() {
            let seed = index + tokens
            let valueType = ElementType.allCases[seed % 3]
            let keys = normalRows(type: type, tokens: tokens, headDimension: dimensions.keys, seed: seed)
            let values = normalRows(
                type: valueType,
                tokens: tokens,
                headDimension: dimensions.values,
                seed: seed + 1
            )
            let plan = AttentionPlan(
                dimensions: dimensions,
                blockTokens: 32,
                type: type,
                keyWidths: [0],
                keptChannels: 1,
                valueWidth: 0
            )
            let count = seed % 4 + 1
            var queries = AttentionQueries(count: count, plan: plan, seed: seed)
            queries.visible = visibleRanges(tokens: tokens, seed: seed)
            queries.softCap = seed % 3 == 0 ? 3 : 0
            var reference = ReferenceTiles(queryCount: count, valueDimension: dimensions.values)
            reference.add(keys: keys, values: values, queries: queries)
            for set in [KernelSet.scalar] + KernelSet.vectorSets {
                var state = AttentionState(dimensions)
                state.attend(queries, keys: keys, values: values, with: set)
                let error = largestError(state.output, against: reference.output, rows: count)
                #expect(error <= AttentionBound.full, "\(set), \(dimensions)")
                #expect(state.marginsAreIntact, "\(set), \(dimensions)")
                if tokens == 0 { #expect(state == AttentionState(dimensions), "\(set)") }
            }
        }
    }
}

/// Random rows at some distance from each other and from alignment.
private func normalRows(type: ElementType, tokens: Int, headDimension: Int, seed: Int) -> SampleRows {
    SampleRows(
        randomValues(count: tokens * headDimension, headDimension: headDimension, seed: seed),
        type: type,
        tokens: tokens,
        headDimension: headDimension,
        padding: seed % 3 * 6,
        shift: seed % 2
    )
}
