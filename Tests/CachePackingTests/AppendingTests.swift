import TestSupport
import Testing
import ThinkCompress

/// Appending to a `CompressedCache`: the bytes don't depend on how tokens arrived.
@Suite struct AppendingTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let recipe: String
        var type = ElementType.float16
        var testDescription: String { "\(recipe) of \(type.name)" }

        var shape: TestCache {
            var cache = TestCache()
            cache.headDimension = 20
            cache.tokens = 600
            cache.window = 1
            cache.elementType = type
            return cache
        }
    }

    static let cases = [
        Case(recipe: "f16"),
        Case(recipe: "bf16", type: .bfloat16),
        Case(recipe: "f32", type: .float32),
        Case(recipe: "kivi(bits=2)"),
        Case(recipe: "kivi(bits=4,residual=0)", type: .bfloat16),
        Case(recipe: "kivi(keys=8,values=2,group=64,residual=64)", type: .float32),
        Case(recipe: "kivi(bits=8,group=128)"),
    ]

    /// Appends tokens in pieces whose lengths `next` tells.
    private func append(
        _ source: KVCache,
        from start: Int,
        to cache: inout CompressedCache,
        next: () -> Int
    ) throws {
        var token = start
        while token < source.tokenCount {
            let end = min(token + next(), source.tokenCount)
            try cache.append(
                source.layers(tokens: token..<end),
                tokens: source.tokens.map { Array($0[token..<end]) },
                positions: source.positions.map { Array($0[token..<end]) }
            )
            token = end
        }
    }

    @Test("gives the bytes of all tokens at once", arguments: cases, [1, 100, 300])
    func appendsToPrefix(_ test: Case, prefix: Int) async throws {
        let source = try test.shape.makeQuickly()
        let recipe = try Recipe(test.recipe)
        let expected = CacheContent(try await CompressedCache(compressing: source, recipe: recipe))
        let start = try await CompressedCache(compressing: source.prefix(prefix), recipe: recipe)
        var atOnce = start
        try append(source, from: prefix, to: &atOnce) { .max / 2 }
        #expect(CacheContent(atOnce).difference(from: expected) == nil)
        var oneByOne = start
        try append(source, from: prefix, to: &oneByOne) { 1 }
        #expect(CacheContent(oneByOne).difference(from: expected) == nil)
    }

    @Test("gives the same bytes in pieces of any length", arguments: cases, [UInt64(1), 2, 3])
    func appendsPieces(_ test: Case, seed: UInt64) async throws {
        let source = try test.shape.makeQuickly()
        let recipe = try Recipe(test.recipe)
        let expected = CacheContent(try await CompressedCache(compressing: source, recipe: recipe))
        var generator = SplitMix64(seed: seed)
        let prefix = Int.random(in: 1..<200, using: &generator)
        var cache = try await CompressedCache(compressing: source.prefix(prefix), recipe: recipe)
        try append(source, from: prefix, to: &cache) { Int.random(in: 0...150, using: &generator) }
        #expect(CacheContent(cache).difference(from: expected) == nil)
    }

    @Test("appends to an empty layer of given plans", arguments: cases)
    func appendsToEmptyLayer(_ test: Case) async throws {
        let source = try test.shape.makeQuickly()
        let expected = try await CompressedCache(compressing: source, recipe: Recipe(test.recipe)).layers[1]
        var layer = CompressedLayer(shape: expected.shape, index: 1, plan: expected.plan)
        #expect(layer.tokenCount == 0)
        for start in stride(from: 0, to: 600, by: 75) {
            let piece = source.layers(tokens: start..<start + 75)[1]
            try layer.append(keys: piece.keys, values: piece.values)
        }
        #expect(CacheContent(layer).difference(from: CacheContent(expected)) == nil)
    }

    @Test("appends to a layer that lies in another's memory", arguments: cases, [200, 256, 290])
    func appendsToFixedLayer(_ test: Case, prefix: Int) async throws {
        let source = try test.shape.makeQuickly()
        let recipe = try Recipe(test.recipe)
        let expected = try await CompressedCache(compressing: source, recipe: recipe).layers[0]
        let start = try await CompressedCache(compressing: source.prefix(prefix), recipe: recipe).layers[0]
        var layer = CompressedLayer(shape: start.shape, index: 0, plan: start.plan).holding(
            CompressedLayer.Content(
                extent: start.extent,
                tokenCount: start.tokenCount,
                slabs: start.extent.chunks.flatMap { start.slabPieces(chunk: $0) },
                window: start.residualWindow
            )
        )
        let rest = source.layers(tokens: prefix..<600)[0]
        try layer.append(keys: rest.keys, values: rest.values)
        #expect(CacheContent(layer).difference(from: CacheContent(expected)) == nil)
    }

    // MARK: - Values

    @Test("leaves a copy as it was, also when both append", arguments: cases)
    func copiesAreValues(_ test: Case) async throws {
        let source = try test.shape.makeQuickly()
        let recipe = try Recipe(test.recipe)
        let original = try await CompressedCache(compressing: source.prefix(290), recipe: recipe)
        let before = CacheContent(original)
        // The first one to append gives its slab room for more; the second one must not write there.
        var first = original
        try first.append(source.layers(tokens: 290..<370), tokens: Array(repeating: 1, count: 80))
        let afterFirst = CacheContent(first)
        var second = first
        try second.append(source.layers(tokens: 400..<560), tokens: Array(repeating: 2, count: 160))
        #expect(CacheContent(first).difference(from: afterFirst) == nil)
        let afterSecond = CacheContent(second)
        try first.append(source.layers(tokens: 370..<530), tokens: Array(repeating: 3, count: 160))
        #expect(CacheContent(second).difference(from: afterSecond) == nil)
        #expect(CacheContent(first).difference(from: afterSecond) != nil)
        #expect(CacheContent(original).difference(from: before) == nil)
        var alone = try await CompressedCache(compressing: source.prefix(290), recipe: recipe)
        try alone.append(
            source.layers(tokens: 290..<530),
            tokens: [Int32](repeating: 1, count: 80) + [Int32](repeating: 3, count: 160)
        )
        #expect(CacheContent(first).difference(from: CacheContent(alone)) == nil)
    }

    @Test("leaves bytes that were lent as they were")
    func lentBytesStay() async throws {
        let source = try Self.cases[3].shape.makeQuickly()
        var cache = try await CompressedCache(
            compressing: source.prefix(200),
            recipe: Recipe("kivi(bits=2,residual=32)")
        )
        try cache.append(source.layers(tokens: 200..<201))
        let window = try #require(cache.layers[0].residualWindow)
        let bytes = window.keys.packedBytes
        try cache.append(source.layers(tokens: 201..<300))
        #expect(window.keys.packedBytes == bytes)
    }

    // MARK: - Token ids and positions

    private func small() async throws -> (source: KVCache, cache: CompressedCache) {
        var test = TestCache()
        (test.layers, test.headDimension, test.tokens, test.window) = (2, 16, 100, 0)
        let source = try test.makeQuickly()
        return (
            source,
            try await CompressedCache(compressing: source.prefix(60), recipe: Recipe("kivi(bits=4,residual=32)"))
        )
    }

    @Test("goes on with token ids where all have them, and with positions that may be the tokens' own")
    func goesOnWithIdentifiers() async throws {
        let (source, _) = try await small()
        let start = try KVCache(
            layers: source.layers(tokens: 0..<60),
            tokens: Array(0..<60),
            positions: Array(100..<160)
        )
        var cache = try await CompressedCache(compressing: start, recipe: Recipe("f16"))
        try cache.append(source.layers(tokens: 60..<62), tokens: [7, 8], positions: [300, 301])
        #expect(cache.tokens == Array(0..<60) + [7, 8])
        #expect(cache.positions == Array(100..<160) + [300, 301])
        try cache.append(source.layers(tokens: 62..<63))
        #expect(cache.tokens == nil)
        #expect(cache.positions == Array(100..<160) + [300, 301, 62])
        #expect(cache.tokenCount == 63)
        try cache.append(source.layers(tokens: 63..<64), tokens: [9], positions: [302])
        #expect(cache.tokens == nil)
        #expect(cache.positions == Array(100..<160) + [300, 301, 62, 302])
    }

    @Test("appends nothing where there are no new tokens")
    func appendsNothing() async throws {
        var (source, cache) = try await small()
        let before = CacheContent(cache)
        try cache.append(source.layers(tokens: 60..<60), tokens: [])
        #expect(CacheContent(cache).difference(from: before) == nil)
    }

    // MARK: - Refusals

    @Test("refuses layers that are missing or have other tokens, ids or positions")
    func refusesRaggedLayers() async throws {
        let (source, original) = try await small()
        let error = CodecError(
            .shapeMismatch,
            "every layer must get the same new tokens, with as many ids and positions"
        )
        let pieces = source.layers(tokens: 60..<65)
        let attempts: [(layers: [KVCacheLayer], tokens: [Int32]?, positions: [Int32]?)] = [
            ([], nil, nil), ([pieces[0]], nil, nil), (pieces + [pieces[0]], nil, nil),
            ([pieces[0], source.layers(tokens: 60..<64)[1]], nil, nil), (pieces, [1, 2, 3, 4], nil),
            (pieces, [1, 2, 3, 4, 5], [1]),
        ]
        for attempt in attempts {
            var cache = original
            #expect(throws: error) {
                try cache.append(attempt.layers, tokens: attempt.tokens, positions: attempt.positions)
            }
            #expect(CacheContent(cache).difference(from: CacheContent(original)) == nil)
        }
    }

    struct Shape: Sendable, CustomTestStringConvertible {
        var heads = 2
        var dimension = 16
        var type = ElementType.float16
        var valueTokens = 70
        let message: String
        var testDescription: String { message }

        var layer: KVCacheLayer {
            var generator = SplitMix64(seed: 1)
            func tensor(tokens: Int) -> KVTensor {
                .random(elementType: type, heads: heads, tokens: tokens, headDimension: dimension, using: &generator)
            }
            return KVCacheLayer(keys: tensor(tokens: 70), values: tensor(tokens: valueTokens))
        }
    }

    static let shapes = [
        Shape(heads: 1, message: "keys of 1 heads, 70 tokens, dimension 16, F16"),
        Shape(dimension: 8, message: "keys of 2 heads, 70 tokens, dimension 8, F16"),
        Shape(type: .bfloat16, message: "keys of 2 heads, 70 tokens, dimension 16, BF16"),
        Shape(valueTokens: 69, message: "values of 2 heads, 69 tokens, dimension 16, F16"),
    ]

    @Test("refuses another shape or type in any layer, and nothing changes", arguments: shapes, [0, 1])
    func refusesShape(_ shape: Shape, layer: Int) async throws {
        var (source, cache) = try await small()
        let before = CacheContent(cache)
        var layers = source.layers(tokens: 0..<70)
        layers[layer] = shape.layer
        let error = CodecError(
            .shapeMismatch,
            layer: layer,
            "\(shape.message) don't fit a layer of 2 heads, dimension 16, F16"
        )
        #expect(throws: error) { try cache.append(layers) }
        #expect(CacheContent(cache).difference(from: before) == nil)
        #expect(throws: error) {
            try cache.layers[layer].append(keys: layers[layer].keys, values: layers[layer].values)
        }
        #expect(CacheContent(cache).difference(from: before) == nil)
        // The cache is as good as before.
        try cache.append(source.layers(tokens: 60..<100), tokens: source.tokens.map { Array($0[60..<100]) })
        let whole = try await CompressedCache(compressing: source, recipe: Recipe("kivi(bits=4,residual=32)"))
        #expect(CacheContent(cache).difference(from: CacheContent(whole)) == nil)
    }
}
