import TestSupport
import Testing
import ThinkCompress

@Suite struct ThinKCodecTests {
    // MARK: - How many channels

    @Test(
        "prunes the exact share of the channels, rounded down",
        arguments: [
            (100, "0.29", 29), (100, "0.57", 57), (100, "0.58", 58), (128, "0.3", 38), (128, "0.4", 51),
            (128, "0.5", 64), (128, "0.7", 89), (64, "0", 0), (64, "0.015624", 0), (64, "0.015625", 1), (10, "0.1", 1),
            (3, "0.333333", 0), (3, "0.333334", 1), (3, "0.666667", 2), (64, "0.999999", 63), (1, "0.999999", 0),
            (1000, "0.001", 1), (1000, "0.000999", 0),
        ]
    )
    func prunesShare(dimension: Int, ratio: String, pruned: Int) async throws {
        var shape = TestCache()
        (shape.layers, shape.headDimension, shape.tokens, shape.window) = (1, dimension, 5, 0)
        let recipe = try Recipe("think(keys=\(ratio),score=keys)")
        let compressed = try await CompressedCache(compressing: shape.makeQuickly(), recipe: recipe)
        for plan in compressed.layers[0].plan.heads {
            #expect(plan.keptChannelCount == dimension - pruned)
            #expect(plan.keyRuns.count == 1)
            #expect(plan.keyRuns[0].channels == plan.keyRuns[0].channels.sorted())
            #expect(plan.keyMeans == [])
        }
    }

    // MARK: - Which channels

    /// A cache of one layer and KV head.
    private static func cache(
        keys: [Float],
        queries: [Float]? = nil,
        profile: [Float]? = nil,
        dimension: Int,
        type: ElementType = .float16
    ) throws -> KVCache {
        let tensor = KVTensor(keys, elementType: type, heads: 1, headDimension: dimension)
        return try KVCache(
            layers: [
                KVCacheLayer(
                    keys: tensor,
                    values: tensor,
                    queries: queries.map { KVTensor($0, elementType: type, heads: 1, headDimension: dimension) },
                    profile: profile.map { LayerProfile(meanSquaredQueries: $0) }
                )
            ]
        )
    }

    private static func keptChannels(_ cache: KVCache, _ recipe: String) async throws -> [UInt16] {
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe(recipe))
        return compressed.layers[0].plan.heads[0].keyRuns.flatMap(\.channels)
    }

    @Test(
        "keeps the lower of channels that score alike",
        arguments: [
            ([1, 1, 1, 1, 1, 1, 1, 1], [0, 1, 2, 3]), ([2, 1, 1, 2, 1, 1, 1, 2], [0, 1, 3, 7]),
            ([0, 0, 0, 0, 0, 0, 0, 0], [0, 1, 2, 3]), ([1, -1, 2, -2, 1, -1, 2, -2], [2, 3, 6, 7]),
            ([3, 3, 3, 3, 3, 1, 3, 3], [0, 1, 2, 3]),
        ]
    )
    func keepsLowerOfEqual(row: [Float], kept: [UInt16]) async throws {
        let keys = (0..<3).flatMap { _ in row }
        let queries = [Float](repeating: 0.5, count: 8)
        #expect(try await Self.keptChannels(Self.cache(keys: keys, dimension: 8), "think(keys=0.5,score=keys)") == kept)
        let scored = try Self.cache(keys: keys, queries: queries, dimension: 8)
        #expect(try await Self.keptChannels(scored, "think(keys=0.5)") == kept)
    }

    struct Heads: Sendable, CustomTestStringConvertible {
        let queryHeads: Int
        let kvHeads: Int
        let type: ElementType
        var testDescription: String { "\(queryHeads) query heads, \(kvHeads) KV heads, \(type.name)" }
    }

    static let heads = [
        Heads(queryHeads: 2, kvHeads: 2, type: .float16), Heads(queryHeads: 6, kvHeads: 2, type: .bfloat16),
        Heads(queryHeads: 4, kvHeads: 1, type: .float32), Heads(queryHeads: 8, kvHeads: 4, type: .float16),
    ]

    @Test("keeps the channels of highest score", arguments: heads, [1, 5, 32, 40, 100])
    func choosesChannels(heads: Heads, observe: Int) async throws {
        var shape = TestCache()
        (shape.queryHeads, shape.kvHeads, shape.elementType) = (heads.queryHeads, heads.kvHeads, heads.type)
        (shape.headDimension, shape.tokens, shape.window) = (24, 70, 40)
        let source = try shape.makeQuickly()
        let recipe = try Recipe("think(keys=0.5,observe=\(observe))")
        let compressed = try await CompressedCache(compressing: source, recipe: recipe)
        for (index, layer) in source.layers.enumerated() {
            let expected = try #require(NaiveScores(layer, observe: observe)).keepMasks(pruning: 12)
            let masks = compressed.layers[index].plan.heads.map { $0.keepMask }
            #expect(masks == expected)
        }
    }

    @Test("looks at the last queries only")
    func looksAtLastQueries() async throws {
        // The first four queries look at channels 0 and 1, the last two at 2 and 3.
        let first: [Float] = [9, 9, 0, 0]
        let last: [Float] = [0, 0, 1, 1]
        let queries = [first, first, first, first, last, last].flatMap { $0 }
        let cache = try Self.cache(keys: [Float](repeating: 1, count: 32), queries: queries, dimension: 4)
        #expect(try await Self.keptChannels(cache, "think(keys=0.5,observe=2)") == [2, 3])
        #expect(try await Self.keptChannels(cache, "think(keys=0.5,observe=3)") == [0, 1])
        #expect(try await Self.keptChannels(cache, "think(keys=0.5)") == [0, 1])
    }

    @Test("takes the keys of all tokens, those of the window too")
    func takesAllKeys() async throws {
        var keys = [Float](repeating: 1, count: 8 * 4)
        keys[7 * 4 + 2] = 50
        keys[7 * 4 + 3] = 40
        let cache = try Self.cache(keys: keys, dimension: 4)
        #expect(try await Self.keptChannels(cache, "think(keys=0.5,score=keys,recent=64)") == [2, 3])
    }

    // MARK: - Where scores come from

    @Test("scores by the profile where no queries came")
    func usesProfile() async throws {
        let keys = [Float](repeating: 1, count: 16)
        let cache = try Self.cache(keys: keys, profile: [0, 2, 1, 3], dimension: 4)
        #expect(try await Self.keptChannels(cache, "think(keys=0.5)") == [1, 3])
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("think(keys=0.5)"))
        #expect(compressed.profile == [[0, 2, 1, 3]])
    }

    @Test("scores by the profile where both came")
    func prefersProfile() async throws {
        let keys = [Float](repeating: 1, count: 16)
        let cache = try Self.cache(keys: keys, queries: [3, 0, 2, 0], profile: [0, 2, 1, 3], dimension: 4)
        #expect(try await Self.keptChannels(cache, "think(keys=0.5)") == [1, 3])
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("think(keys=0.5)"))
        #expect(compressed.profile == [[0, 2, 1, 3]])
    }

    @Test("has the profile of each KV head's own query heads and of the last queries")
    func profileOfGroups() async throws {
        // Two KV heads, four query heads, three queries of two channels: query head h is h + 1 in channel 0.
        let queries = (0..<4).flatMap { head -> [Float] in
            [7, 7, Float(head + 1), 0, Float(head + 1), 2]
        }
        let keys = KVTensor([Float](repeating: 1, count: 12), elementType: .float32, heads: 2, headDimension: 2)
        let tensor = KVTensor(queries, elementType: .float32, heads: 4, headDimension: 2)
        let cache = try KVCache(layers: [KVCacheLayer(keys: keys, values: keys, queries: tensor)])
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("think(keys=0.5,observe=2)"))
        #expect(compressed.profile == [[2.5, 2, 12.5, 2]])
    }

    @Test("refuses a cache without queries and profile and names the three ways out")
    func refusesWithoutQueries() async throws {
        let cache = try Self.cache(keys: [Float](repeating: 1, count: 16), dimension: 4)
        let error = try #require(
            await #expect(throws: CodecError.self) {
                try await CompressedCache(compressing: cache, recipe: Recipe("think(keys=0.5)+f16"))
            }
        )
        #expect(error.code == .missingQueries)
        for remedy in ["layers.N.queries", "layers.N.q2", "score=keys"] {
            #expect(error.description.contains(remedy))
        }
    }

    @Test("scores by key norms alone where the recipe says so, whatever queries came")
    func scoresByKeys() async throws {
        let keys: [Float] = (0..<5).flatMap { _ in [1, 4, 3, 2] }
        #expect(
            try await Self.keptChannels(Self.cache(keys: keys, dimension: 4), "think(keys=0.5,score=keys)") == [1, 2]
        )
        let cache = try Self.cache(keys: keys, queries: [9, 0, 0, 9], dimension: 4)
        #expect(try await Self.keptChannels(cache, "think(keys=0.5,score=keys)") == [1, 2])
        #expect(try await Self.keptChannels(cache, "think(keys=0.5)") == [0, 3])
    }

    // MARK: - What is restored

    private static func source(_ type: ElementType) throws -> KVCache {
        var shape = TestCache()
        (shape.headDimension, shape.tokens, shape.window, shape.elementType) = (20, 100, 8, type)
        return try shape.makeQuickly()
    }

    @Test(
        "restores pruned channels as zero or their mean, others to the bit",
        arguments: ElementType.allCases,
        [false, true]
    )
    func restores(type: ElementType, asMean: Bool) async throws {
        let source = try Self.source(type)
        let recipe = try Recipe("think(keys=0.4,restore=\(asMean ? "mean" : "none"))")
        let compressed = try await CompressedCache(compressing: source, recipe: recipe)
        #expect(compressed.blockTokenCount == 64)
        for (index, layer) in compressed.layers.enumerated() {
            let restored = try layer.decompress(rows: 0..<100, as: type)
            #expect(restored.values.hasSameBits(as: source.layers[index].values))
            var expected = source.layers[index].keys.numbers
            for (head, plan) in layer.plan.heads.enumerated() {
                let mask = plan.keepMask
                let pruned = mask.indices.filter { !mask[$0] }
                #expect(pruned.count == 8)
                let means = pruned.map { Self.mean(source.layers[index].keys, head: head, channel: $0) }
                #expect(plan.keyMeans == (asMean ? means : []))
                // Tokens in the window keep all channels.
                for token in 0..<64 {
                    for (channel, mean) in zip(pruned, means) {
                        expected[(head * 100 + token) * 20 + channel] = asMean ? mean : 0
                    }
                }
            }
            let tensor = KVTensor(expected, elementType: type, heads: 2, headDimension: 20)
            #expect(restored.keys.hasSameBits(as: tensor))
        }
    }

    /// The mean of a channel as Formats/think.md sums it: runs of 32 rows in float32, the runs in float64.
    private static func mean(_ keys: KVTensor, head: Int, channel: Int) -> Float {
        let numbers = keys.numbers
        var total = 0.0
        for start in stride(from: 0, to: keys.tokens, by: 32) {
            var run: Float = 0
            for token in start..<min(start + 32, keys.tokens) {
                run += numbers[(head * keys.tokens + token) * keys.headDimension + channel]
            }
            total += Double(run)
        }
        return Float(total / Double(keys.tokens))
    }

    @Test("keeps every channel of the newest tokens", arguments: [0, 32, 64, 96])
    func keepsRecent(recent: Int) async throws {
        let source = try Self.source(.float16)
        let recipe = try Recipe("think(keys=0.9,recent=\(recent))")
        let compressed = try await CompressedCache(compressing: source, recipe: recipe)
        let blocks = (100 - recent) / 32 * 32
        #expect(compressed.blockTokenCount == blocks)
        for (layer, original) in zip(compressed.layers, source.layers(tokens: blocks..<100)) {
            let kept = try layer.decompress(rows: blocks..<100, as: .float16)
            #expect(kept.keys.hasSameBits(as: original.keys))
        }
    }

    @Test("decides by the rows that a layer holds, and keeps every channel of the newest of them")
    func partlyHeld() async throws {
        var generator = SplitMix64(seed: 5)
        let geometry = try LayerGeometry(queryHeads: 2, kvHeads: 1, keyDimension: 20, valueDimension: 20)
        let rows = KVCacheLayer.random(geometry, elementType: .float16, rows: 70, using: &generator)
        let queries = KVTensor.random(
            elementType: .float16,
            heads: 2,
            tokens: 40,
            headDimension: 20,
            using: &generator
        )
        func compressed(_ held: HeldTokens, tokenCount: Int) async throws -> CompressedLayer {
            let layer = KVCacheLayer(keys: rows.keys, values: rows.values, held: held, queries: queries)
            let cache = try KVCache(layers: [layer], tokenCount: tokenCount)
            let recipe = try Recipe("think(keys=0.4,observe=16,restore=mean)")
            return try await CompressedCache(compressing: cache, recipe: recipe).layers[0]
        }
        // The same rows and queries, whichever tokens they are of, give the same plan.
        let whole = try await compressed(.all, tokenCount: 70)
        #expect(whole.plan.heads[0].keptChannelCount == 12)
        let list = (0..<UInt32(70)).map { 2 * $0 }
        for (held, blocks) in [(HeldTokens.last, 96 - 80), (.listed([list]), 32)] {
            let layer = try await compressed(held, tokenCount: 150)
            #expect(layer.plan == whole.plan)
            let restored = try layer.decompress(rows: 0..<70, as: .float16)
            #expect(layer.rowCount - layer.extent.windowRowCount == blocks)
            #expect(restored.keys[tokens: blocks..<70].hasSameBits(as: rows.keys[tokens: blocks..<70]))
            #expect(!restored.keys[tokens: blocks - 1..<blocks].hasSameBits(as: rows.keys[tokens: blocks - 1..<blocks]))
        }
    }

    // MARK: - Appending

    /// A prompt in which channels 0 and 1 matter, and later tokens in which 2 and 3 do.
    private static func drifting() throws -> KVCache {
        let keys = (0..<200).flatMap { token -> [Float] in
            let noise = Float(token % 13) / 64
            return token < 80 ? [4 + noise, 4, 1, 1 - noise] : [1, 1 + noise, 8, 8 - noise]
        }
        return try cache(keys: keys, dimension: 4)
    }

    @Test(
        "keeps the prompt's decision for tokens that arrive later",
        arguments: ["think(keys=0.5,score=keys,restore=mean)", "think(keys=0.5,score=keys)+kivi(bits=4,residual=0)"]
    )
    func keepsDecision(text: String) async throws {
        let source = try Self.drifting()
        let recipe = try Recipe(text)
        let prompt = try await CompressedCache(compressing: source.prefix(80), recipe: recipe)
        #expect(prompt.layers[0].plan.heads[0].keyRuns.map(\.channels) == [[0, 1]])
        var appended = prompt
        for token in 80..<200 { try appended.append(source.layers(tokens: token..<token + 1)) }
        #expect(appended.layers[0].plan.heads == prompt.layers[0].plan.heads)
        #expect(appended.blockTokenCount == (200 - recipe.residualWindow) / 32 * 32)

        // With the same plan the bytes are those of all tokens at once.
        var atOnce = CompressedLayer(shape: prompt.shape, index: 0, plan: prompt.layers[0].plan)
        try atOnce.append(keys: source.layers[0].keys, values: source.layers[0].values)
        #expect(CacheContent(appended.layers[0]).difference(from: CacheContent(atOnce)) == nil)

        // Compressing all at once decides otherwise.
        let whole = try await CompressedCache(compressing: source, recipe: recipe)
        #expect(whole.layers[0].plan.heads[0].keyRuns.map(\.channels) == [[2, 3]])
        #expect(CacheContent(appended.layers[0]).difference(from: CacheContent(whole.layers[0])) != nil)
    }

    @Test("gives the bytes of all at once where the scores agree")
    func appendsAlike() async throws {
        let keys = (0..<200).flatMap { _ -> [Float] in [1, 4, 3, 2] }
        let source = try Self.cache(keys: keys, dimension: 4)
        let recipe = try Recipe("think(keys=0.5,score=keys,restore=mean)")
        var appended = try await CompressedCache(compressing: source.prefix(80), recipe: recipe)
        try appended.append(source.layers(tokens: 80..<200))
        let whole = try await CompressedCache(compressing: source, recipe: recipe)
        #expect(CacheContent(appended).difference(from: CacheContent(whole)) == nil)
    }

    // MARK: - Refusals

    @Test(
        "refuses keys that have no score and says where they are",
        arguments: [Float.nan, .infinity, -.infinity],
        ["f16", "kivi(bits=2)"]
    )
    func refusesKeys(number: Float, quantizer: String) async throws {
        let source = try Self.source(.float16)
        var numbers = source.layers[1].keys.numbers
        numbers[(100 + 37) * 20 + 4] = number
        var layers = source.layers
        layers[1] = KVCacheLayer(
            keys: KVTensor(numbers, elementType: .float16, heads: 2, headDimension: 20),
            values: layers[1].values,
            queries: layers[1].queries
        )
        let cache = try KVCache(layers: layers)
        let message = "a key is \(number); only full precision (f16, bf16, f32) takes such a cache"
        let error = CodecError(.unsupportedValue, layer: 1, head: 1, token: 37, channel: 4, message)
        #expect(error.description == "\(message) (layer 1, head 1, token 37, channel 4)")
        for score in ["queries", "keys"] {
            await #expect(throws: error) {
                try await CompressedCache(
                    compressing: cache,
                    recipe: Recipe("think(keys=0.4,score=\(score))+\(quantizer)")
                )
            }
        }
    }

    @Test("refuses queries that are not finite", arguments: [Float.nan, .infinity])
    func refusesQueries(number: Float) async throws {
        let cache = try Self.cache(keys: [Float](repeating: 1, count: 16), queries: [1, 1, number, 1], dimension: 4)
        let error = CodecError(
            .unsupportedValue,
            layer: 0,
            head: 0,
            "a query of query head 0 is not finite or too large; export the cache again"
        )
        await #expect(throws: error) {
            try await CompressedCache(compressing: cache, recipe: Recipe("think(keys=0.5)"))
        }
    }

    @Test("takes parameters in Swift as in text")
    func parameters() throws {
        let codec = try ThinKCodec(keyRatio: 0.29, observe: 8, recent: 0, restoration: .mean, score: .keys)
        #expect(codec.parameters.map(\.text) == ["keys=0.29", "observe=8", "recent=0", "restore=mean", "score=keys"])
        #expect(codec.keyRatio == 0.29)
        let both = try ThinKCodec(keyRatio: 0.4, valueRatio: 0.2, recent: 0)
        #expect(both.parameters.map(\.text) == ["keys=0.4", "values=0.2", "recent=0"])
        #expect(both.valueRatio == 0.2)
        #expect(try ThinKCodec(keyRatio: 0, valueRatio: 0.5).parameters.map(\.text) == ["values=0.5"])
        #expect(throws: RecipeError.self) { try ThinKCodec(keyRatio: 0.4, valueRatio: 1) }
        #expect(try ThinKCodec(keyRatio: 0).parameters.map(\.text) == ["keys=0"])
        #expect(try ThinKCodec(keyRatio: 0.000001).parameters.map(\.text) == ["keys=0.000001"])
        #expect(try ThinKCodec(keyRatio: 0.999999).parameters.map(\.text) == ["keys=0.999999"])
        #expect(throws: RecipeError.self) { try ThinKCodec(keyRatio: 0.4, observe: 0) }
        #expect(throws: RecipeError.self) { try ThinKCodec(keyRatio: 0.4, recent: -1) }
    }

    @Test("refuses a share that isn't one", arguments: [-0.1, 0.9999999, 1, 1.5, 2, 1e300, Double.infinity, .nan])
    func refusesRatio(ratio: Double) async {
        // In a process of its own: a trap is no refusal.
        await #expect(processExitsWith: .success) { [bits = ratio.bitPattern as UInt64] in
            #expect(throws: RecipeError.self) { try ThinKCodec(keyRatio: Double(bitPattern: bits)) }
        }
    }
}

/// ThinK's scores of one layer, computed in float64 head by head.
struct NaiveScores {
    /// Per KV head, per channel.
    let scores: [[Double]]

    /// - Returns: nil if the layer has no queries.
    init?(_ layer: KVCacheLayer, observe: Int) {
        guard let queries = layer.queries else { return nil }
        let dimension = layer.keys.headDimension
        let group = queries.heads / layer.keys.heads
        let keyNumbers = layer.keys.numbers
        let queryNumbers = queries.numbers
        func meanSquare(_ numbers: [Float], rows: [Int], channel: Int) -> Double {
            rows.reduce(0) { sum, row in
                let number = Double(numbers[row * dimension + channel])
                return sum + number * number
            } / Double(rows.count)
        }
        let first = max(queries.tokens - observe, 0)
        scores = (0..<layer.keys.heads).map { head in
            let keyRows = (0..<layer.keys.tokens).map { head * layer.keys.tokens + $0 }
            let queryRows = (head * group..<(head + 1) * group).flatMap { queryHead in
                (first..<queries.tokens).map { queryHead * queries.tokens + $0 }
            }
            return (0..<dimension).map { channel in
                meanSquare(keyNumbers, rows: keyRows, channel: channel)
                    * meanSquare(queryNumbers, rows: queryRows, channel: channel)
            }
        }
    }

    /// Per KV head: whether each channel is kept when `count` are pruned.
    func keepMasks(pruning count: Int) -> [[Bool]] {
        scores.map { scores in
            let threshold = scores.sorted()[count]
            return scores.map { $0 >= threshold }
        }
    }
}
