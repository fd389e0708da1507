import TestSupport
import Testing
import ThinkCompress

/// Compressing layer by layer, and caches in memory of their own.
@Suite struct CacheCompressorTests {
    static let recipes = [
        "f16", "kivi(bits=2,residual=32)", "think(keys=0.4,restore=mean)+kivi(bits=4,residual=64)",
        "think(keys=0.4,values=0.2)",
    ]

    private static func make(
        tokens: Int = 330,
        layers: Int = 3,
        change: (inout TestCache) -> Void = { _ in }
    ) throws -> KVCache {
        var shape = TestCache()
        (shape.layers, shape.headDimension, shape.tokens, shape.window) = (layers, 20, tokens, 8)
        change(&shape)
        return try shape.makeQuickly()
    }

    @Test("layer by layer gives the bytes of the whole cache", arguments: recipes)
    func layerByLayer(text: String) async throws {
        let source = try Self.make()
        let recipe = try Recipe(text)
        var compressor = CacheCompressor(
            geometry: source.geometry,
            tokenCount: source.tokenCount,
            elementType: source.elementType,
            recipe: recipe
        )
        for layer in source.layers { try await compressor.add(layer) }
        let cache = compressor.finish(tokens: source.tokens, positions: source.positions, metadata: source.metadata)
        let whole = try await CompressedCache(compressing: source, recipe: recipe)
        #expect(CacheContent(cache).difference(from: CacheContent(whole)) == nil)
    }

    @Test("a layer that does not fit is refused and named")
    func misfits() async throws {
        let source = try Self.make()
        var compressor = CacheCompressor(
            geometry: source.geometry,
            tokenCount: source.tokenCount,
            elementType: source.elementType,
            recipe: try Recipe("kivi(bits=2)")
        )
        try await compressor.add(source.layers[0])
        let others = [
            try Self.make { $0.headDimension = 24 }, try Self.make { $0.kvHeads *= 2 }, try Self.make(tokens: 329),
            try Self.make { $0.elementType = .float32 },
        ]
        for other in others {
            let error = await #expect(throws: KVCacheError.self) { try await compressor.add(other.layers[0]) }
            #expect(error?.layer == 1)
        }
        #expect(compressor.layers.count == 1)
    }

    @Test("a detached cache has the same bytes and grows by itself", arguments: recipes)
    func detached(text: String) async throws {
        let source = try Self.make(layers: 1)
        let cache = try await CompressedCache(compressing: source, recipe: Recipe(text))
        let content = CacheContent(cache)
        var copy = try cache.detached()
        #expect(CacheContent(copy).difference(from: content) == nil)

        // Of a cache that has grown, whose last slab has room for more.
        let more = try Self.make(tokens: 40, layers: 1).layers
        try copy.append(more, tokens: [Int32](repeating: 1, count: 40))
        #expect(CacheContent(try copy.detached()).difference(from: CacheContent(copy)) == nil)
        #expect(CacheContent(cache).difference(from: content) == nil)
    }
}
