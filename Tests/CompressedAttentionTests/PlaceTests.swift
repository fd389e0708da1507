import TestSupport
import Testing
import ThinkCompress

@Suite("Attention over mixed plans, sinks and some of the tokens agrees with float64 attention over what is restored")
struct PlaceTests {
    /// Which tokens a layer holds, how many there are, and its sinks.
    struct Case: Sendable, CustomTestStringConvertible {
        enum Held: Sendable { case all, last, listed }

        let held: Held
        let rows: Int
        var tokens = 700
        var sinks = 0
        var blockLength = 32
        var keyDimension = 20
        var valueDimension = 33
        var testDescription: String {
            "\(held) \(rows) of \(tokens), \(sinks) sinks, blocks of \(blockLength), "
                + "dimensions \(keyDimension) and \(valueDimension)"
        }

        /// - Parameter group: queries of a token to each KV head.
        func sample(queryCount: Int, newTokens: Int, kvHeads: Int = 4, group: Int = 2) throws -> AttentionSample {
            var generator = SplitMix64(seed: UInt64(rows + sinks))
            let geometry = try LayerGeometry(
                queryHeads: kvHeads * group,
                kvHeads: kvHeads,
                keyDimension: keyDimension,
                valueDimension: valueDimension
            )
            let plan = try LayerPlan.mixed(geometry: geometry, sinks: sinks, hasMeans: sinks % 8 == 0, seed: 3)
            let held: HeldTokens =
                switch self.held {
                case .all: .all
                case .last: .last
                case .listed:
                    .random(kvHeads: kvHeads, rows: rows, tokenCount: tokens, sinks: sinks, using: &generator)
                }
            let source = KVCacheLayer.random(
                geometry,
                elementType: .float16,
                rows: rows,
                held: held,
                using: &generator
            )
            let shape = BlockShape(elementType: .float16, blockLength: blockLength, residualWindow: 20)
            let layer = try CompressedLayer(packing: source, by: plan, shape: shape, tokenCount: tokens)
            let newer = KVCacheLayer.random(geometry, elementType: .float16, rows: newTokens, using: &generator)
            let queries = KVTensor.random(
                elementType: .float32,
                heads: kvHeads * group,
                tokens: queryCount,
                headDimension: keyDimension,
                using: &generator
            )
            return AttentionSample(layer: layer, newer: newTokens > 0 ? newer : nil, queries: queries)
        }
    }

    static let cases = [
        Case(held: .all, rows: 700), Case(held: .all, rows: 700, blockLength: 64, keyDimension: 64, valueDimension: 64),
        Case(held: .all, rows: 700, blockLength: 128, keyDimension: 130, valueDimension: 7),
        Case(held: .all, rows: 700, sinks: 4), Case(held: .all, rows: 700, sinks: 40),
        Case(held: .all, rows: 700, sinks: 64, blockLength: 64), Case(held: .all, rows: 50, tokens: 50, sinks: 64),
        Case(held: .all, rows: 90, tokens: 90, sinks: 64),
        Case(held: .last, rows: 1), Case(held: .last, rows: 20), Case(held: .last, rows: 150),
        Case(held: .last, rows: 445), Case(held: .last, rows: 444), Case(held: .last, rows: 443),
        Case(held: .last, rows: 600, blockLength: 128, keyDimension: 40, valueDimension: 80),
        Case(held: .listed, rows: 15), Case(held: .listed, rows: 300), Case(held: .listed, rows: 300, sinks: 4),
        Case(held: .listed, rows: 340, sinks: 64, blockLength: 64), Case(held: .listed, rows: 700),
    ]

    @Test("with one query and with several", arguments: cases, [(1, 0), (5, 5)])
    func attends(_ test: Case, counts: (queries: Int, newTokens: Int)) throws {
        try check(test.sample(queryCount: counts.queries, newTokens: counts.newTokens))
    }

    // Of so many rows of queries every set of kernels restores pages and multiplies matrices.
    @Test("with many queries", arguments: cases.filter { [50, 150, 300, 443].contains($0.rows) || $0.sinks == 40 })
    func attendsByProducts(_ test: Case) throws {
        try check(test.sample(queryCount: 40, newTokens: 20, kvHeads: 1, group: 8))
    }

    private func check(_ sample: AttentionSample) throws {
        let restored = try sample.layer.decompress(rows: 0..<sample.layer.rowCount, as: .float32)
        for window in [nil, 1, 150] {
            let reference = sample.reference(over: restored, attention: Attention(slidingWindow: window))
            for (precision, tolerance) in [(Attention.Precision.precise, Tolerance.precise), (.fast, Tolerance.fast)] {
                let output = try sample.output(Attention(slidingWindow: window, precision: precision))
                #expect(reference.relativeError(of: output) < tolerance, "\(precision), window \(window ?? 0)")
            }
        }
    }

    @Test("and gives zeros where no token is held that a query sees")
    func seesNothing() throws {
        let geometry = try LayerGeometry(queryHeads: 2, kvHeads: 1, keyDimension: 16, valueDimension: 8)
        let plan = try LayerPlan.mixed(geometry: geometry, hasMeans: true, seed: 1)
        var generator = SplitMix64(seed: 1)
        let held = HeldTokens.listed([Array(0..<100)])
        let source = KVCacheLayer.random(geometry, elementType: .float16, rows: 100, held: held, using: &generator)
        let shape = BlockShape(elementType: .float16, blockLength: 32, residualWindow: 0)
        let layer = try CompressedLayer(packing: source, by: plan, shape: shape, tokenCount: 110)
        let queries = KVTensor.random(
            elementType: .float16,
            heads: 2,
            tokens: 3,
            headDimension: 16,
            using: &generator
        )
        let sample = AttentionSample(layer: layer, queries: queries)
        for precision in [Attention.Precision.fast, .precise] {
            // The queries are of the tokens 107 to 109: the first one sees token 99 through a window of 9.
            let nothing = try sample.output(Attention(slidingWindow: 8, precision: precision))
            #expect(nothing == [Float](repeating: 0, count: 3 * 2 * 8))
            let first = try sample.output(Attention(slidingWindow: 9, precision: precision))
            let values = try layer.decompress(rows: 99..<100, as: .float32).values.numbers
            for (found, expected) in zip(first, values + values) { #expect(abs(found - expected) < 0.02) }
            #expect(first[16...].allSatisfy { $0 == 0 })
        }
    }

    @Test("but not over layers without values or without a cache", arguments: [true, false])
    func refusesNoValues(hasKeys: Bool) throws {
        let geometry = try hasKeys ? LayerGeometry(kvHeads: 2, keyDimension: 16, valueDimension: 0) : .none
        let plan = try LayerPlan.mixed(geometry: geometry, hasMeans: false, seed: 1)
        var generator = SplitMix64(seed: 1)
        let source = KVCacheLayer.random(geometry, elementType: .float16, rows: 40, using: &generator)
        let shape = BlockShape(elementType: .float16, blockLength: 32, residualWindow: 0)
        let layer = try CompressedLayer(packing: source, by: plan, shape: shape, index: 5, tokenCount: 40)
        let queries = KVTensor.random(elementType: .float16, heads: 2, tokens: 1, headDimension: 16, using: &generator)
        var output: [Float] = []
        var span = output.mutableSpan
        #expect(throws: CodecError(.shapeMismatch, layer: 5, "the layer has no values to attend to")) {
            try Attention().attend(queries, over: layer, using: WorkerThreads(threadCount: 1), into: &span)
        }
    }
}
