import TestSupport
import Testing
import ThinkCompress

@Suite("Attention over a compressed layer agrees with float64 attention over what it restores")
struct AttentionTests {
    /// What a case compares: a cache, new tokens after it, and queries of the newest.
    struct Sample {
        let layer: CompressedLayer
        let newer: KVCacheLayer?
        let queries: KVTensor

        /// - Parameters:
        ///   - tokens: of the cache; `newTokens` come after them.
        ///   - queryCount: queries of each query head.
        init(
            recipe: String,
            tokens: Int = 700,
            newTokens: Int = 0,
            queryCount: Int = 1,
            group: Int = 4,
            kvHeads: Int = 2,
            headDimension: Int = 64,
            elementType: ElementType = .float16
        ) async throws {
            var maker = TestCache()
            maker.layers = 1
            maker.kvHeads = kvHeads
            maker.queryHeads = kvHeads * group
            maker.headDimension = headDimension
            maker.tokens = tokens + newTokens
            maker.elementType = elementType
            maker.window = max(queryCount, 32)
            let whole = try maker.make().layers[0]
            let old = KVCacheLayer(
                keys: whole.keys[tokens: 0..<tokens],
                values: whole.values[tokens: 0..<tokens],
                queries: whole.queries
            )
            let cache = try KVCache(layers: [old])
            layer = try await CompressedCache(compressing: cache, recipe: Recipe(recipe)).layers[0]
            newer =
                newTokens == 0
                ? nil
                : KVCacheLayer(
                    keys: whole.keys[tokens: tokens..<tokens + newTokens],
                    values: whole.values[tokens: tokens..<tokens + newTokens]
                )
            let count = maker.window
            guard let own = whole.queries?[tokens: count - queryCount..<count] else { throw Missing.queries }
            queries = own
        }

        enum Missing: Error { case queries }

        func output(_ attention: Attention, threads: Int = 2) throws -> [Float] {
            var output = [Float](repeating: .nan, count: queries.tokens * queries.heads * queries.headDimension)
            var span = output.mutableSpan
            let workers = AttentionWorkers(threadCount: threads)
            try attention.attend(queries, over: layer, followedBy: newer, using: workers, into: &span)
            return output
        }

        func reference(_ attention: Attention) -> [Double] {
            ReferenceAttention(attention: attention, queries: queries, layer: layer, newer: newer).output()
        }

        func error(_ attention: Attention, threads: Int = 2) throws -> Double {
            relativeError(try output(attention, threads: threads), reference(attention))
        }
    }

    static let recipes = [
        "f16", "think(keys=0.4)", "kivi(bits=2)", "kivi(bits=4)", "kivi(bits=8)", "kivi(keys=2,values=4)",
        "think(keys=0.4)+kivi(bits=2)", "think(keys=0.4,restore=mean)+kivi(bits=2)",
        "think(keys=0.5,restore=mean)", "kivi(bits=2,group=64,residual=0)", "kivi(bits=2,group=128)",
    ]

    @Test(arguments: recipes)
    func preciseMode(recipe: String) async throws {
        let sample = try await Sample(recipe: recipe)
        #expect(try sample.error(Attention(precision: .precise)) < 5e-4)
    }

    @Test(arguments: recipes)
    func fastMode(recipe: String) async throws {
        let sample = try await Sample(recipe: recipe)
        #expect(try sample.error(Attention(precision: .fast)) < 3.5e-2)
    }

    @Test(arguments: [(1, 1), (1, 5), (7, 7), (7, 3), (40, 40), (200, 0), (300, 20)])
    func manyQueries(queryCount: Int, newTokens: Int) async throws {
        let sample = try await Sample(
            recipe: "think(keys=0.4,restore=mean)+kivi(bits=2)",
            newTokens: newTokens,
            queryCount: queryCount
        )
        #expect(try sample.error(Attention(precision: .precise)) < 5e-4)
    }

    @Test(arguments: [
        Attention(slidingWindow: 100), Attention(slidingWindow: 1), Attention(logitSoftCap: 2), Attention(scale: 0.3),
    ])
    func options(attention: Attention) async throws {
        for (queryCount, newTokens) in [(1, 0), (5, 3), (90, 90)] {
            let sample = try await Sample(
                recipe: "kivi(bits=4,residual=32)",
                newTokens: newTokens,
                queryCount: queryCount
            )
            #expect(try sample.error(attention) < 5e-4)
        }
    }
}
