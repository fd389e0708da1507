import TestSupport
import Testing
import ThinkCompress

@Suite struct KVCacheTests {
    private static func tensor(
        _ heads: Int = 2,
        _ tokens: Int = 3,
        _ dimension: Int = 4,
        type: ElementType = .float16
    ) -> KVTensor {
        let size = heads * tokens * dimension * type.byteCount
        return KVTensor(
            bytes: SharedBytes([UInt8](repeating: 0, count: size)),
            elementType: type,
            heads: heads,
            tokens: tokens,
            headDimension: dimension
        )
    }

    private static func layer(queries: KVTensor? = nil, profile: [Float]? = nil) -> KVCacheLayer {
        KVCacheLayer(
            keys: tensor(),
            values: tensor(),
            queries: queries,
            profile: profile.map { LayerProfile(meanSquaredQueries: $0) }
        )
    }

    @Test("has the geometry, type and tokens of its layers")
    func takesLayers() throws {
        let layer = Self.layer(queries: Self.tensor(6, 2), profile: [Float](repeating: 0.5, count: 8))
        let cache = try KVCache(
            layers: [layer, layer],
            tokens: [1, 2, 3],
            positions: [5, 6, 7],
            metadata: ["model.id": "m"]
        )
        #expect(cache.geometry == (try CacheGeometry(layers: 2, queryHeads: 6, kvHeads: 2, headDimension: 4)))
        #expect(cache.elementType == .float16)
        #expect(cache.tokenCount == 3)
        #expect(cache.tokens == [1, 2, 3])
        #expect(cache.positions == [5, 6, 7])
        #expect(cache.metadata == ["model.id": "m"])
        #expect(try KVCache(layers: [Self.layer()]).geometry.layers[0].queryHeads == 0)
    }

    @Test("takes as many queries as there are tokens, of another type than the keys")
    func takesFullWindow() throws {
        let cache = try KVCache(layers: [Self.layer(queries: Self.tensor(2, 3, type: .float32))])
        #expect(cache.geometry.layers[0].queryHeads == 2)
    }

    struct Refusal: Sendable, CustomTestStringConvertible {
        let error: KVCacheError
        var layers: [KVCacheLayer] = [layer()]
        var tokens: [Int32]?
        var positions: [Int32]?
        var testDescription: String { error.description }
    }

    static let shapeRefusals = [
        Refusal(error: KVCacheError(.emptyCache, "the cache has no layers"), layers: []),
        Refusal(
            error: KVCacheError(.emptyCache, "the cache has no tokens"),
            layers: [KVCacheLayer(keys: tensor(2, 0), values: tensor(2, 0))]
        ),
        Refusal(
            error: KVCacheError(
                .raggedLayers,
                layer: 0,
                "values are F16 [2, 4, 4], the keys F16 [2, 3, 4]"
            ),
            layers: [KVCacheLayer(keys: tensor(), values: tensor(2, 4))]
        ),
        Refusal(
            error: KVCacheError(.raggedLayers, layer: 1, "values are F16 [2, 3, 4], the keys F16 [3, 3, 4]"),
            layers: [layer(), KVCacheLayer(keys: tensor(3), values: tensor())]
        ),
        Refusal(
            error: KVCacheError(.raggedLayers, layer: 1, "values are BF16 [2, 3, 4], the keys F16 [2, 3, 4]"),
            layers: [layer(), KVCacheLayer(keys: tensor(), values: tensor(type: .bfloat16))]
        ),
        Refusal(
            error: KVCacheError(.raggedLayers, layer: 1, "keys are BF16 [2, 3, 4], the cache is F16"),
            layers: [layer(), KVCacheLayer(keys: tensor(type: .bfloat16), values: tensor(type: .bfloat16))]
        ),
        Refusal(
            error: KVCacheError(.invalidTokens, layer: 0, "it holds 3 tokens of the cache's 4"),
            layers: [layer(), KVCacheLayer(keys: tensor(2, 4), values: tensor(2, 4))]
        ),
        Refusal(
            error: KVCacheError(.invalidTokens, layer: 0, "it holds the last 3 tokens of 3"),
            layers: [KVCacheLayer(keys: tensor(), values: tensor(), held: .last)]
        ),
        Refusal(
            error: KVCacheError(.invalidTokens, layer: 0, "it holds a list that does not ascend"),
            layers: [KVCacheLayer(keys: tensor(), values: tensor(), held: .listed([[0, 1, 2], [0, 2, 1]]))]
        ),
        Refusal(
            error: KVCacheError(.invalidTokens, layer: 0, "it holds token 3 of 3"),
            layers: [KVCacheLayer(keys: tensor(), values: tensor(), held: .listed([[0, 1, 2], [0, 1, 3]]))]
        ),
        Refusal(
            error: KVCacheError(.invalidState, layer: 0, "two of its states have the same name"),
            layers: [
                KVCacheLayer(
                    keys: tensor(),
                    values: tensor(),
                    state: [
                        LayerState(name: "a", bytes: SharedBytes([1])), LayerState(name: "a", bytes: SharedBytes([])),
                    ]
                )
            ]
        ),
        Refusal(
            error: KVCacheError(.invalidGeometry, layer: 0, "the key dimension is 1025, must be 1...1024"),
            layers: [KVCacheLayer(keys: tensor(2, 3, 1025), values: tensor(2, 3, 1025))]
        ),
        Refusal(error: KVCacheError(.invalidTokens, layer: 0, "it holds 3 tokens of the cache's 2"), tokens: [1, 2]),
        Refusal(error: KVCacheError(.emptyCache, "the cache has no tokens"), tokens: []),
        Refusal(
            error: KVCacheError(.invalidTokens, "4 positions for a cache of 3 tokens"),
            tokens: [1, 2, 3],
            positions: [0, 1, 2, 3]
        ),
    ]

    static let queryRefusals = [
        Refusal(
            error: KVCacheError(.invalidGeometry, layer: 0, "3 query heads can't share 2 KV heads evenly"),
            layers: [layer(queries: tensor(3, 1))]
        ),
        Refusal(
            error: KVCacheError(
                .invalidQueries,
                layer: 0,
                "queries are F16 [4, 1, 5], the keys have the dimension 4"
            ),
            layers: [layer(queries: tensor(4, 1, 5))]
        ),
        Refusal(
            error: KVCacheError(.invalidQueries, layer: 0, "an observation window of 4 queries for 3 tokens"),
            layers: [layer(queries: tensor(4, 4))]
        ),
        Refusal(
            error: KVCacheError(.invalidQueries, layer: 1, "an observation window of 0 queries for 3 tokens"),
            layers: [layer(queries: tensor(4, 1)), layer(queries: tensor(4, 0))]
        ),
        Refusal(
            error: KVCacheError(.invalidQueries, layer: 1, "some layers have queries and others have none"),
            layers: [layer(queries: tensor(4, 1)), layer()]
        ),
        Refusal(
            error: KVCacheError(.invalidProfile, layer: 1, "some layers have a query profile and others have none"),
            layers: [layer(), layer(profile: [Float](repeating: 1, count: 8))]
        ),
        Refusal(
            error: KVCacheError(
                .invalidProfile,
                layer: 0,
                "a query profile of 7 numbers for 2 KV heads of dimension 4"
            ),
            layers: [layer(profile: [Float](repeating: 1, count: 7))]
        ),
    ]

    @Test("refuses parts that don't fit each other, and says where", arguments: shapeRefusals + queryRefusals)
    func refuses(_ refusal: Refusal) {
        #expect(throws: refusal.error) {
            try KVCache(layers: refusal.layers, tokens: refusal.tokens, positions: refusal.positions)
        }
    }

    @Test("refuses a query profile with impossible numbers", arguments: [-1, Float.nan, .infinity, -.infinity])
    func refusesProfile(number: Float) {
        var profile = [Float](repeating: 1, count: 8)
        profile[5] = number
        let error = KVCacheError(.invalidProfile, layer: 0, "a query profile with numbers below 0 or not finite")
        #expect(throws: error) { try KVCache(layers: [Self.layer(profile: profile)]) }
    }

    @Test("refuses more tokens than a snapshot can say")
    func refusesTooManyTokens() throws {
        // Nothing is read, so the bytes need not be there.
        let buffer = try AlignedBuffer(byteCount: 64)
        let tokens = Int(Int32.max) + 1
        let tensor = buffer.shared.withUnsafeBytes { bytes in
            bytes.baseAddress.map { base in
                KVTensor(
                    bytes: SharedBytes(owner: buffer, base: base, count: 2 * tokens),
                    elementType: .float16,
                    heads: 1,
                    tokens: tokens,
                    headDimension: 1
                )
            }
        }
        let error = KVCacheError(.invalidGeometry, "2147483648 tokens are more than a cache may have")
        #expect(throws: error) {
            let tensor = try #require(tensor)
            _ = try KVCache(layers: [KVCacheLayer(keys: tensor, values: tensor)])
        }
    }

    @Test("names the layer in an error's text")
    func describesErrors() {
        #expect(KVCacheError(.raggedLayers, layer: 3, "keys differ").description == "layer 3: keys differ")
        #expect(KVCacheError(.emptyCache, "no tokens").description == "no tokens")
    }
}
