import TestSupport
import Testing
import ThinkCompress

@Suite struct CacheComparisonTests {
    /// How far errors may be from those computed in float64, relative to them: attention is computed in float32.
    static let tolerance = 1e-4

    private static func compress(_ cache: KVCache, _ recipe: String) async throws -> CompressedCache {
        try await CompressedCache(compressing: cache, recipe: Recipe(recipe))
    }

    private static func measure(_ original: KVCache, _ compressed: CompressedCache) async throws -> CompressionQuality {
        try await CacheComparison(original: original, compressed: compressed).measure()
    }

    // MARK: - Values

    @Test("finds no error at all in full precision of a model's cache")
    func losslessFixture() async throws {
        let cache = try CacheDump.read(path: ProjectFiles.fixture("postgres-2048.safetensors"))
        let quality = try await Self.measure(cache, Self.compress(cache, "f16"))
        let none = CompressionQuality.Errors(keys: 0, values: 0, scores: 0, attention: 0)
        #expect(quality.total == none)
        #expect(quality.layers == [none, none, none, none])
    }

    struct Case: Sendable, CustomTestStringConvertible {
        let recipe: String
        var type = ElementType.float16
        var tokens = 150
        var window = 10
        var testDescription: String { "\(recipe), \(tokens) tokens, \(window) queries" }
    }

    @Test(
        "measures the errors that attention in float64 has",
        arguments: [
            Case(recipe: "kivi(bits=2,residual=32)"), Case(recipe: "kivi(bits=8,residual=0)", type: .float32),
            Case(recipe: "kivi(keys=4,values=2,residual=0)", type: .bfloat16, tokens: 300, window: 3),
            Case(recipe: "think(keys=0.4,recent=0,restore=mean)+kivi(bits=4,residual=0)", tokens: 64, window: 64),
            Case(recipe: "think(keys=0.5)", tokens: 257, window: 1),
        ]
    )
    func agreesWithNaive(_ test: Case) async throws {
        var shape = TestCache()
        (shape.headDimension, shape.tokens, shape.window) = (16, test.tokens, test.window)
        (shape.queryHeads, shape.elementType) = (6, test.type)
        let cache = try shape.makeQuickly()
        let compressed = try await Self.compress(cache, test.recipe)
        let quality = try await Self.measure(cache, compressed)
        var total = NaiveErrors()
        for (index, layer) in cache.layers.enumerated() {
            let restored = try compressed.layers[index].decompress(rows: 0..<test.tokens, as: .float32)
            let expected = NaiveErrors(original: layer, restored: restored)
            try expect(quality.layers[index], equal: expected)
            total.add(expected)
        }
        #expect(quality.layers.count == 2)
        try expect(quality.total, equal: total)
        #expect(quality.isFinite)
    }

    @Test(
        "measures dropped tokens by what attention over all gives",
        arguments: [
            ("streaming(recent=40)", ""), ("snapkv(keep=0.5,observe=4)", "kivi(bits=4,residual=32)"),
            ("keydiff(tokens=70)", "think(keys=0.4,recent=0)+kivi(bits=2,residual=0)"),
        ],
        [HeldTokens.all, .last]
    )
    func droppedTokens(recipe: (selection: String, later: String), held: HeldTokens) async throws {
        var shape = TestCache()
        (shape.headDimension, shape.tokens, shape.window, shape.queryHeads) = (16, 300, 10, 6)
        let tokenCount = held == .all ? 300 : 350
        let cache = try shape.makeQuickly()
        let original = try KVCache(
            layers: cache.layers.map {
                KVCacheLayer(keys: $0.keys, values: $0.values, held: held, queries: $0.queries)
            },
            tokenCount: tokenCount
        )
        let exact = try await Self.compress(original, recipe.selection)
        let text = [recipe.selection, recipe.later].filter { !$0.isEmpty }.joined(separator: "+")
        let compressed = try await Self.compress(original, text)
        let quality = try await Self.measure(original, compressed)
        var total = NaiveErrors()
        for (index, layer) in original.layers.enumerated() {
            func rows(_ cache: CompressedCache) throws -> KVCacheLayer {
                try cache.layers[index].decompress(rows: 0..<cache.layers[index].rowCount, as: .float32)
            }
            let kept = try rows(exact)
            #expect(kept.keys.tokens < 151)
            let expected = NaiveErrors(
                original: layer,
                kept: kept,
                restored: try rows(compressed),
                tokenCount: tokenCount
            )
            total.add(expected)
            if recipe.later.isEmpty {
                #expect([quality.layers[index].keys, quality.layers[index].values] == [0, 0])
                #expect(quality.layers[index].scores == 0)
                let attention = try #require(quality.layers[index].attention)
                #expect(attention > 0.01)
                let exact = expected.attention.relative
                #expect(abs(Double(attention) - exact) <= Self.tolerance * exact)
            } else {
                try expect(quality.layers[index], equal: expected)
            }
        }
        if !recipe.later.isEmpty { try expect(quality.total, equal: total) }
    }

    @Test("refuses tokens that the original lacks")
    func lackingTokens() async throws {
        let layer = try TestCache().makeQuickly().layers[0]
        func cache(_ rows: Range<Int>, _ held: HeldTokens) throws -> KVCache {
            let layer = KVCacheLayer(keys: layer.keys[tokens: rows], values: layer.values[tokens: rows], held: held)
            return try KVCache(layers: [layer], tokenCount: 300)
        }
        let list = Array(100..<150) as [UInt32]
        let listed = try await Self.compress(cache(0..<50, .listed([list, list])), "f16")
        await #expect(throws: Never.self) { try await Self.measure(cache(0..<200, .last), listed) }
        let error = await #expect(throws: CodecError.self) { try await Self.measure(cache(0..<180, .last), listed) }
        #expect(error?.message == "the compressed layer holds a token that the original lacks")
        #expect([error?.layer, error?.head, error?.token] == [0, 0, 100])
        let last = try await Self.compress(cache(0..<50, .last), "f16")
        let other = await #expect(throws: CodecError.self) { try await Self.measure(cache(0..<180, .last), last) }
        #expect(other?.message == "the original has 180 tokens in this layer, and the compressed one 50")
    }

    private func expect(_ errors: CompressionQuality.Errors, equal expected: NaiveErrors) throws {
        let pairs: [(Float, NaiveErrors.Pair)] = [
            (errors.keys, expected.keys), (errors.values, expected.values),
            (try #require(errors.scores), expected.scores), (try #require(errors.attention), expected.attention),
        ]
        for (ours, pair) in pairs {
            #expect(abs(Double(ours) - pair.relative) <= Self.tolerance * pair.relative)
        }
    }

    @Test("measures keys and values only where there are no queries")
    func withoutQueries() async throws {
        var shape = TestCache()
        (shape.headDimension, shape.tokens, shape.window) = (8, 70, 0)
        let cache = try shape.makeQuickly()
        let quality = try await Self.measure(cache, Self.compress(cache, "kivi(bits=2,residual=0)"))
        for errors in quality.layers + [quality.total] {
            #expect(errors.keys > 0.01)
            #expect(errors.values > 0.01)
            #expect(errors.scores == nil)
            #expect(errors.attention == nil)
        }
    }

    @Test("gives the same bits every time")
    func isDeterministic() async throws {
        let cache = try TestCache().makeQuickly()
        let compressed = try await Self.compress(cache, "kivi(bits=2,residual=32)")
        let first = try await Self.measure(cache, compressed)
        for _ in 0..<3 { #expect(try await Self.measure(cache, compressed) == first) }
    }

    // MARK: - Who sees what

    /// A cache of ones of 40 tokens and four queries, of which one may be zero, and one number of a token may differ.
    private static func cache(zeroQuery: Int?, changed: (part: CachePart, token: Int)?) throws -> KVCache {
        func tensor(_ part: CachePart) -> KVTensor {
            var numbers = [Float](repeating: 1, count: 40 * 4)
            // Tokens differ, so that attention is not of equal numbers.
            for token in 0..<40 { numbers[token * 4] = Float(token % 5) }
            if let changed, changed.part == part { numbers[changed.token * 4 + 1] = 3 }
            return KVTensor(numbers, elementType: .float16, heads: 1, headDimension: 4)
        }
        var queries = [Float](repeating: 0.5, count: 2 * 4 * 4)
        if let zeroQuery {
            for head in 0..<2 {
                for channel in 0..<4 { queries[(head * 4 + zeroQuery) * 4 + channel] = 0 }
            }
        }
        return try KVCache(
            layers: [
                KVCacheLayer(
                    keys: tensor(.keys),
                    values: tensor(.values),
                    queries: KVTensor(queries, elementType: .float16, heads: 2, headDimension: 4)
                )
            ]
        )
    }

    @Test("lets each query see the tokens up to its own and no later one", arguments: 0..<4, 0..<4)
    func isCausal(query: Int, zero: Int) async throws {
        // The key of a query's own token differs; it is seen by this query and the later ones. A query that is zero has
        // the same scores with any keys.
        let original = try Self.cache(zeroQuery: zero, changed: nil)
        let other = try await Self.compress(Self.cache(zeroQuery: zero, changed: (.keys, 36 + query)), "f16")
        let errors = try await Self.measure(original, other).total
        if query == 3 && zero == 3 {
            #expect(errors.keys > 0)
            #expect(errors.scores == 0)
            #expect(errors.attention == 0)
            return
        }
        let restored = try other.layers[0].decompress(rows: 0..<40, as: .float16)
        try expect(errors, equal: NaiveErrors(original: original.layers[0], restored: restored))
    }

    @Test("lets the last query see the last token's value")
    func lastTokenIsSeen() async throws {
        let original = try Self.cache(zeroQuery: nil, changed: nil)
        let other = try await Self.compress(Self.cache(zeroQuery: nil, changed: (.values, 39)), "f16")
        let errors = try await Self.measure(original, other).total
        #expect(errors.keys == 0)
        #expect(errors.scores == 0)
        #expect(try #require(errors.attention) > 0)
    }

    // MARK: - Refusals

    struct Refusal: Sendable, CustomTestStringConvertible {
        let message: String
        var layers = 2
        var kvHeads = 2
        var headDimension = 8
        var tokens = 40
        var elementType = ElementType.float16
        var modelID = "test"
        var changedToken: Int?
        var testDescription: String { message }

        func cache() throws -> KVCache {
            var shape = TestCache()
            (shape.layers, shape.kvHeads, shape.queryHeads) = (layers, kvHeads, 2 * kvHeads)
            (shape.headDimension, shape.tokens, shape.elementType) = (headDimension, tokens, elementType)
            let cache = try shape.makeQuickly()
            var ids = cache.tokens
            if let changedToken { ids?[changedToken] = 5000 }
            return try KVCache(layers: cache.layers, tokens: ids, metadata: ["model.id": modelID, "producer": modelID])
        }
    }

    @Test(
        "refuses caches that don't belong together and names what differs",
        arguments: [
            Refusal(message: "not the same layers: 2 in the original, 3 in the snapshot", layers: 3),
            Refusal(message: "not the same KV heads of layer 0: 2 in the original, 1 in the snapshot", kvHeads: 1),
            Refusal(
                message: "not the same key dimension of layer 0: 8 in the original, 16 in the snapshot",
                headDimension: 16
            ),
            Refusal(message: "not the same number of tokens: 40 in the original, 39 in the snapshot", tokens: 39),
            Refusal(
                message: "not the same element type: F16 in the original, BF16 in the snapshot",
                elementType: .bfloat16
            ),
            Refusal(
                message: "not the same model.id: test in the original, other in the snapshot",
                modelID: "other"
            ),
            Refusal(
                message: "not the same id of token 21: 147 in the original, 5000 in the snapshot",
                changedToken: 21
            ),
        ]
    )
    func refuses(_ refusal: Refusal) async throws {
        let original = try Refusal(message: "").cache()
        let compressed = try await Self.compress(refusal.cache(), "kivi(bits=4)")
        #expect(throws: CodecError(.shapeMismatch, refusal.message)) {
            try CacheComparison(original: original, compressed: compressed)
        }
    }

    @Test("compares where one side knows no model and no token ids")
    func takesUnknownIdentity() async throws {
        let original = try Refusal(message: "").cache()
        let anonymous = try KVCache(layers: original.layers, metadata: ["producer": "somebody else"])
        let quality = try await Self.measure(original, Self.compress(anonymous, "f16"))
        #expect(quality.total.keys == 0)
        let other = try await Self.measure(anonymous, Self.compress(original, "f16"))
        #expect(other.total.keys == 0)
    }

    @Test("says where errors are not finite")
    func infiniteErrors() {
        let finite = CompressionQuality.Errors(keys: 1, values: 0, scores: nil, attention: nil)
        let infinite = CompressionQuality.Errors(keys: 1, values: 0, scores: .infinity, attention: nil)
        let undefined = CompressionQuality.Errors(keys: .nan, values: 0, scores: nil, attention: nil)
        #expect(CompressionQuality(layers: [finite], total: finite).isFinite)
        #expect(!CompressionQuality(layers: [finite, infinite], total: finite).isFinite)
        #expect(!CompressionQuality(layers: [finite], total: undefined).isFinite)
    }

    @Test(
        "finds no finite error where infinities, or what is no number, hide it",
        arguments: CachePart.allCases,
        [Float.infinity, -.infinity, .nan]
    )
    func hiddenErrors(part: CachePart, number: Float) async throws {
        var shape = TestCache()
        (shape.layers, shape.headDimension, shape.tokens, shape.window) = (1, 16, 150, 10)
        let source = try shape.makeQuickly().layers[0]
        func changed(_ other: CachePart) -> KVTensor {
            let tensor = source[other]
            var numbers = tensor.numbers
            // Of a sink, in every head.
            if part == other { for head in 0..<tensor.heads { numbers[head * 150 * 16 + 19] = number } }
            return KVTensor(numbers, elementType: .float16, heads: tensor.heads, headDimension: 16)
        }
        let layer = KVCacheLayer(keys: changed(.keys), values: changed(.values), queries: source.queries)
        let cache = try KVCache(layers: [layer])
        let lossy = try await Self.measure(cache, Self.compress(cache, "kivi(bits=2,residual=32,sinks=4)")).total
        let scores = try #require(lossy.scores)
        let attention = try #require(lossy.attention)
        #expect(lossy.keys.isFinite == (part == .values) && lossy.values.isFinite == (part == .keys))
        #expect(scores.isFinite == (part == .values) && !attention.isFinite)
        let exact = try await Self.measure(cache, Self.compress(cache, "f16")).total
        #expect(exact == CompressionQuality.Errors(keys: 0, values: 0, scores: 0, attention: 0))
        // What stays is exact, but not what attention over all would give.
        let selected = try await Self.measure(cache, Self.compress(cache, "streaming(recent=100)+f16")).total
        #expect(selected.keys == 0 && selected.values == 0 && selected.attention?.isFinite == false)
    }

    @Test("ends with a cancellation error when the task is cancelled")
    func cancels() async throws {
        let cache = try TestCache().makeQuickly()
        let comparison = try await CacheComparison(original: cache, compressed: Self.compress(cache, "f16"))
        let task = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await comparison.measure()
        }
        await #expect(throws: CancellationError.self) { try await task.value }
    }
}
