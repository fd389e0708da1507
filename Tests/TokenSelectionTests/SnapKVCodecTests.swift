import Foundation
import TestSupport
import Testing
import ThinkCompress

@Suite struct SnapKVCodecTests {
    /// The rows that SnapKV keeps, by its formulas: the mean of the window's attention, pooled by head, averaged over the
    /// group.
    private static func kept(
        _ sample: SelectionSample,
        count: Int,
        observe: Int = 32,
        kernel: Int = 7
    ) throws -> [[Int]] {
        let source = try sample.layer()
        let queries = try #require(source.queries).numbers
        let (keys, d, w) = (source.keys.numbers, sample.dimension, min(observe, sample.window))
        let older = sample.rows - observe
        let group = sample.queryHeads / sample.kvHeads
        return SelectionSample.tokens(source, of: sample.tokenCount).enumerated().map { head, tokens in
            var scores = [Double](repeating: 0, count: older)
            for queryHead in head * group..<(head + 1) * group {
                var votes = [Double](repeating: 0, count: sample.rows)
                for position in 0..<w {
                    let query = (queryHead * sample.window + sample.window - w + position) * d
                    let own = sample.tokenCount - w + position
                    let weights = tokens.enumerated().map { row, token -> Double in
                        let key = (head * sample.rows + row) * d
                        let products = (0..<d).map { Double(queries[query + $0]) * Double(keys[key + $0]) }
                        return token > own ? 0 : exp(products.reduce(0, +) / Double(d).squareRoot())
                    }
                    let sum = weights.reduce(0, +)
                    for row in weights.indices where sum > 0 { votes[row] += weights[row] / sum / Double(w) }
                }
                for row in 0..<older {
                    let pool = (row - kernel / 2...row + kernel / 2).filter { (0..<older).contains($0) }
                    scores[row] += pool.map { votes[$0] }.reduce(0, +) / Double(kernel) / Double(group)
                }
            }
            return SelectionSample.highest(scores, count: count - observe) + Array(older..<sample.rows)
        }
    }

    static let samples = [
        SelectionSample(), SelectionSample(seed: 8, type: .float16), SelectionSample(type: .bfloat16, queryHeads: 2),
        SelectionSample(held: .last, tokenCount: 400), SelectionSample(held: .listed, tokenCount: 400),
        SelectionSample(held: .listed, rows: 190, tokenCount: 200, window: 40),
        SelectionSample(queryHeads: 3, kvHeads: 3, dimension: 20, window: 9), SelectionSample(rows: 33, tokenCount: 33),
    ]

    @Test("keeps the tokens that a plain implementation of the paper keeps", arguments: samples)
    func agreesWithPlain(_ sample: SelectionSample) async throws {
        let count = max(sample.rows / 2, 32)
        let layer = try await sample.compressed("snapkv(keep=0.5)")
        let tokens = SelectionSample.tokens(try sample.layer(), of: sample.tokenCount)
        let rows = try Self.kept(sample, count: count)
        #expect(layer.held == .listed(zip(tokens, rows).map { tokens, rows in rows.map { UInt32(tokens[$0]) } }))
        #expect(layer.rowCount == count)
        #expect(layer.tokenCount == sample.tokenCount)
    }

    @Test(
        "looks at as many queries as it is told, and pools votes over as many tokens",
        arguments: [1, 8, 20],
        [1, 3, 11]
    )
    func parameters(observe: Int, kernel: Int) async throws {
        let sample = SelectionSample(seed: UInt64(observe * kernel))
        let layer = try await sample.compressed("snapkv(tokens=50,observe=\(observe),kernel=\(kernel))")
        let rows = try Self.kept(sample, count: 50, observe: observe, kernel: kernel)
        #expect(layer.held == .listed(rows.map { $0.map(UInt32.init) }))
    }

    @Test("of equal votes the earlier token stays")
    func keepsEarlierOfEqual() async throws {
        func tensor(_ rows: Int) -> KVTensor {
            KVTensor([Float](repeating: 1, count: rows * 4), elementType: .float32, heads: 1, headDimension: 4)
        }
        let layer = KVCacheLayer(keys: tensor(20), values: tensor(20), queries: tensor(2))
        let cache = try KVCache(layers: [layer])
        let recipe = try Recipe("snapkv(tokens=8,observe=2,kernel=1)")
        let compressed = try await CompressedCache(compressing: cache, recipe: recipe)
        #expect(compressed.layers[0].held == .listed([[0, 1, 2, 3, 4, 5, 18, 19]]))
    }

    @Test("keeps all that a layer has where it is to keep as much, and asks for no queries then")
    func keepsAll() async throws {
        for recipe in [
            "snapkv(keep=1)", "snapkv(tokens=150)", "snapkv(tokens=100000)", "snapkv(keep=0.01,observe=150)",
        ] {
            #expect(try await SelectionSample().compressed(recipe).held == .all)
        }
        // A prompt no longer than the window.
        #expect(
            try await SelectionSample(rows: 32, tokenCount: 32, window: 8).compressed("snapkv(keep=0.1)").held == .all
        )
        let layer = try SelectionSample().layer()
        let cache = try KVCache(layers: [KVCacheLayer(keys: layer.keys, values: layer.values)])
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("snapkv(keep=1)"))
        #expect(compressed.layers[0].held == .all)
    }

    @Test("keeps the window whatever the share")
    func keepsWindow() async throws {
        let layer = try await SelectionSample().compressed("snapkv(keep=0.01)")
        #expect(layer.held == .listed([[UInt32]](repeating: Array(118..<150), count: 2)))
    }

    @Test("takes large scores as they are")
    func largeScores() async throws {
        var rows = [Float](repeating: 0, count: 20 * 4)
        rows[5 * 4] = 3e18
        rows[9 * 4] = -3e18
        let keys = KVTensor(rows, elementType: .float32, heads: 1, headDimension: 4)
        let queries = KVTensor([3e18, 0, 0, 0], elementType: .float32, heads: 1, headDimension: 4)
        let cache = try KVCache(layers: [KVCacheLayer(keys: keys, values: keys, queries: queries)])
        let recipe = try Recipe("snapkv(tokens=2,observe=1,kernel=1)")
        #expect(try await CompressedCache(compressing: cache, recipe: recipe).layers[0].held == .listed([[5, 19]]))
    }

    @Test("refuses caches without queries, and says what to take instead")
    func missingQueries() async throws {
        let layer = try SelectionSample().layer()
        let profile = LayerProfile(meanSquaredQueries: [Float](repeating: 1, count: 32))
        for profile in [nil, profile] {
            let source = KVCacheLayer(keys: layer.keys, values: layer.values, profile: profile)
            let cache = try KVCache(layers: [source])
            let error = await #expect(throws: CodecError.self) {
                try await CompressedCache(compressing: cache, recipe: Recipe("snapkv(keep=0.5)"))
            }
            #expect(error?.code == .missingQueries)
            #expect(
                error?.description
                    == "snapkv keeps tokens that the prompt's last queries attend to, and no queries came with the cache; "
                    + "export it with queries (layers.N.queries, as Tools/export-cache does; a query profile is not "
                    + "enough), or take keydiff or streaming, which need none (layer 0)"
            )
        }
    }

    @Test("refuses keys and queries that are not finite, and says where")
    func notFinite() async throws {
        var keys = [Float](repeating: 1, count: 2 * 40 * 4)
        keys[(40 + 7) * 4 + 2] = .infinity
        let fine = KVTensor([Float](repeating: 1, count: 2 * 40 * 4), elementType: .float32, heads: 2, headDimension: 4)
        let broken = KVTensor(keys, elementType: .float32, heads: 2, headDimension: 4)
        func error(_ layer: KVCacheLayer) async throws -> CodecError? {
            let cache = try KVCache(layers: [layer])
            return await #expect(throws: CodecError.self) {
                try await CompressedCache(compressing: cache, recipe: Recipe("snapkv(tokens=35)"))
            }
        }
        let inKeys = try await error(KVCacheLayer(keys: broken, values: fine, queries: fine))
        #expect(inKeys?.code == .unsupportedValue)
        #expect([inKeys?.layer, inKeys?.head, inKeys?.token, inKeys?.channel] == [0, 1, 7, 2])
        #expect(inKeys?.message.hasSuffix("; take streaming, which chooses tokens without looking at keys") == true)
        // Head 1 has one beyond the window; a window of four tokens doesn't see it.
        let inQueries = try await error(KVCacheLayer(keys: fine, values: fine, queries: broken[tokens: 0..<30]))
        #expect(inQueries?.message == "a query of query head 1 is not finite; export the cache again")
    }

    @Test("reads its parameters, and writes those that are not the defaults")
    func text() throws {
        let stage = try #require(try Recipe("snapkv(keep=0.5)").steps[0].stage as? SnapKVCodec)
        #expect(stage.observe == 32)
        #expect(stage.kernel == 7)
        for (text, canonical) in [
            ("snapkv(keep=0.50)", "snapkv(keep=0.5)"), ("snapkv(kernel=7,observe=32,tokens=64)", "snapkv(tokens=64)"),
            ("snapkv(kernel=1,observe=8,keep=1.0)", "snapkv(keep=1,observe=8,kernel=1)"),
            ("snapkv(keep=0.25)+think(keys=0.4)+kivi(bits=2)", "snapkv(keep=0.25)+think(keys=0.4)+kivi(bits=2)"),
        ] {
            #expect(try Recipe(text).description == canonical)
        }
        #expect(try Recipe(SnapKVCodec(kept: .share(0.3), observe: 16)).description == "snapkv(keep=0.3,observe=16)")
        #expect(try Recipe(SnapKVCodec(kept: .tokens(512), kernel: 5)).description == "snapkv(tokens=512,kernel=5)")
    }

    @Test(
        "refuses and says what would be right",
        arguments: [
            (
                "snapkv", "snapkv takes either keep, the share of tokens that stay, or tokens, their number",
                "snapkv(keep=0.5)"
            ),
            (
                "snapkv(keep=0.5,tokens=9)",
                "snapkv takes either keep, the share of tokens that stay, or tokens, their number", "snapkv(keep=0.5)"
            ),
            (
                "snapkv(keep=0)", "snapkv: keep=0 must be a decimal above 0 and at most 1 with at most six digits",
                "keep=0.5"
            ),
            (
                "snapkv(keep=1.01)",
                "snapkv: keep=1.01 must be a decimal above 0 and at most 1 with at most six digits", "keep=0.5"
            ),
            (
                "snapkv(keep=-1)", "snapkv: keep=-1 must be a decimal above 0 and at most 1 with at most six digits",
                "keep=0.5"
            ),
            (
                "snapkv(keep=0.1234567)",
                "snapkv: keep=0.1234567 must be a decimal above 0 and at most 1 with at most six digits", "keep=0.5"
            ),
            ("snapkv(tokens=0)", "snapkv: tokens=0 must be a whole number from 1 to 2147483647", "tokens=1"),
            (
                "snapkv(tokens=16)",
                "snapkv: tokens=16 must be at least observe=32, the newest tokens, which always stay",
                "snapkv(tokens=16,observe=16)"
            ),
            (
                "snapkv(keep=0.5,kernel=4)",
                "snapkv: kernel=4 must be odd, so that as many tokens are pooled on either side", "kernel=5"
            ),
            ("snapkv(keep=0.5,observe=0)", "snapkv: observe=0 must be a whole number from 1 to 65536", "observe=1"),
            (
                "snapkv(kep=0.5)", "snapkv has no parameter 'kep'; it has the parameters keep, tokens, observe, kernel",
                "keep=0.5"
            ),
            ("kivi(bits=2)+snapkv(keep=0.5)", "snapkv must come before kivi", "snapkv(keep=0.5)+kivi(bits=2)"),
            ("think(keys=0.4)+snapkv(keep=0.5)", "snapkv must come before think", "snapkv(keep=0.5)+think(keys=0.4)"),
            (
                "streaming+snapkv(keep=0.5)", "streaming and snapkv do the same work; a recipe has one of them",
                "streaming"
            ),
        ]
    )
    func refusals(text: String, message: String, suggestion: String) {
        #expect(throws: RecipeError(message, suggestion: suggestion)) { try Recipe(text) }
    }

    @Test("refuses shares and numbers that are none")
    func keptTokens() {
        for share in [0, -0.5, 1.5, .nan, .infinity, 1e-9] {
            #expect(throws: RecipeError.self) { try KeptTokens.share(share) }
        }
        let negative = RecipeError(
            "kept: keep=-0.5 must be a decimal above 0 and at most 1 with at most six digits",
            suggestion: "keep=0.5"
        )
        #expect(throws: negative) { try KeptTokens.share(-0.5) }
        let none = RecipeError(
            "kept: tokens=0 must be a whole number from 1 to 2147483647",
            suggestion: "tokens=1"
        )
        #expect(throws: none) { try KeptTokens.tokens(0) }
    }
}
