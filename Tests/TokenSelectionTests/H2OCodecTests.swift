import Foundation
import TestSupport
import Testing
import ThinkCompress

@Suite struct H2OCodecTests {
    /// A layer whose rows got the attention that is given.
    private static func compressed(_ recipe: String, attention: [[Double]]) async throws -> CompressedLayer {
        let count = attention[0].count
        let numbers = [Float](repeating: 1, count: attention.count * count * 4)
        let tensor = KVTensor(numbers, elementType: .float32, heads: attention.count, headDimension: 4)
        let layer = KVCacheLayer(keys: tensor, values: tensor, accumulatedAttention: attention)
        return try await CompressedCache(compressing: KVCache(layers: [layer]), recipe: Recipe(recipe)).layers[0]
    }

    @Test(
        "keeps the newest, and of the others those of most attention, of equal ones the earlier",
        arguments: [
            ("h2o(tokens=6)", [[0, 3, 5, 7, 8, 9], [0, 1, 2, 7, 8, 9]]),
            ("h2o(keep=0.5)", [[3, 5, 7, 8, 9], [0, 1, 7, 8, 9]]),
            ("h2o(tokens=4,recent=1)", [[0, 3, 5, 9], [0, 1, 2, 9]]),
            ("h2o(keep=0.1,recent=3)", [[7, 8, 9], [7, 8, 9]]),
            ("h2o(keep=0.01)", [[9], [9]]),
        ] as [(String, [[UInt32]])]
    )
    func keepsMostAttended(recipe: String, tokens: [[UInt32]]) async throws {
        // The second head's rows are alike but for the newest, whose attention doesn't matter.
        let attention: [[Double]] = [[2, 1, 1, 4, 0.5, 3, 1, 0, 0, 9], [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]]
        #expect(try await Self.compressed(recipe, attention: attention).held == .listed(tokens))
    }

    @Test("keeps all where as much is to stay, whatever came")
    func keepsAll() async throws {
        let layer = try SelectionSample().layer()
        let cache = try KVCache(layers: [KVCacheLayer(keys: layer.keys, values: layer.values)])
        for recipe in ["h2o(keep=1)", "h2o(tokens=150)", "h2o(keep=0.1,recent=150)"] {
            let compressed = try await CompressedCache(compressing: cache, recipe: Recipe(recipe))
            #expect(compressed.layers[0].held == .all)
            #expect(compressed.metadata["recipe.rationale"] == nil)
        }
    }

    @Test("takes the attention of the queries that came where it has no other, and says so")
    func fromQueries() async throws {
        for sample in [SelectionSample(), SelectionSample(held: .listed, tokenCount: 400, window: 9)] {
            let source = try sample.layer()
            let queries = try #require(source.queries).numbers
            let (keys, d, group) = (source.keys.numbers, sample.dimension, sample.queryHeads / sample.kvHeads)
            let tokens = SelectionSample.tokens(source, of: sample.tokenCount)
            let lists = (0..<sample.kvHeads).map { head -> [UInt32] in
                var sums = [Double](repeating: 0, count: sample.rows)
                for queryHead in head * group..<(head + 1) * group {
                    for position in 0..<sample.window {
                        let weights = (0..<sample.rows).map { row -> Double in
                            guard tokens[head][row] <= sample.tokenCount - sample.window + position else { return 0 }
                            let products = (0..<d).map { channel in
                                Double(queries[(queryHead * sample.window + position) * d + channel])
                                    * Double(keys[(head * sample.rows + row) * d + channel])
                            }
                            return exp(products.reduce(0, +) / Double(d).squareRoot())
                        }
                        let total = weights.reduce(0, +)
                        for row in weights.indices { sums[row] += weights[row] / total }
                    }
                }
                let rows = SelectionSample.highest(Array(sums.prefix(120)), count: 30) + Array(120..<150)
                return rows.map { UInt32(tokens[head][$0]) }
            }
            let compressed = try await CompressedCache(
                compressing: sample.cache(),
                recipe: Recipe("h2o(tokens=60)")
            )
            #expect(compressed.layers[0].held == .listed(lists))
            #expect(
                compressed.metadata["recipe.rationale"]
                    == "h2o added up the attention of the queries that came with the cache, not of all"
            )
            #expect(compressed.recipe?.description == "h2o(tokens=60)")
        }
    }

    @Test("refuses caches without queries, and says what to take instead")
    func missingQueries() async throws {
        let layer = try SelectionSample().layer()
        let cache = try KVCache(layers: [KVCacheLayer(keys: layer.keys, values: layer.values)])
        let error = await #expect(throws: CodecError.self) {
            try await CompressedCache(compressing: cache, recipe: Recipe("h2o(keep=0.5)"))
        }
        #expect(error?.code == .missingQueries)
        #expect(
            error?.message.hasPrefix("h2o keeps tokens that the prompt's queries attended to, and none came") == true
        )
        #expect(error?.message.hasSuffix("or take keydiff or streaming, which need none") == true)
    }

    @Test("refuses accumulated attention of another shape, and numbers that it can't have")
    func impossibleAttention() async throws {
        let layer = try SelectionSample().layer()
        let fine = [[Double]](repeating: [Double](repeating: 1, count: 150), count: 2)
        var (infinite, negative) = (fine, fine)
        infinite[1][149] = .nan
        negative[0][3] = -1
        for weights in [[[1, 2], [3, 4]], [fine[0]], infinite, negative] {
            let wrong = KVCacheLayer(keys: layer.keys, values: layer.values, accumulatedAttention: weights)
            #expect(throws: KVCacheError.self) { try KVCache(layers: [wrong]) }
        }
        let none = KVCacheLayer(elementType: .float32)
        let empty = KVCacheLayer(keys: none.keys, values: none.values, accumulatedAttention: [])
        #expect(throws: KVCacheError.self) { try KVCache(layers: [layer, empty], tokenCount: 150) }
    }

    @Test("reads its parameters, and writes those that are not the defaults")
    func text() throws {
        #expect(try Recipe("h2o(recent=64,keep=0.50)").description == "h2o(keep=0.5,recent=64)")
        #expect(try Recipe(H2OCodec(kept: .share(0.25))).description == "h2o(keep=0.25)")
        #expect(try Recipe(H2OCodec(kept: .tokens(100), recent: 10)).description == "h2o(tokens=100,recent=10)")
        #expect(try Recipe("h2o(keep=0.5)").modelStatistics == .accumulatedAttention)
        #expect(try Recipe("snapkv(keep=0.5)").modelStatistics.isEmpty)
        let tooFew = RecipeError(
            "h2o: tokens=8 must be at least recent=9, the newest tokens, which always stay",
            suggestion: "h2o(tokens=8,recent=8)"
        )
        #expect(throws: tooFew) { try Recipe("h2o(tokens=8,recent=9)") }
        for text in ["h2o", "h2o(keep=0)", "h2o(keep=0.5,recent=0)", "kivi(bits=2)+h2o(keep=0.5)"] {
            #expect(throws: RecipeError.self) { try Recipe(text) }
        }
    }
}
