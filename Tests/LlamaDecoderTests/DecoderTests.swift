import Foundation
import KVCacheCodecs
import LlamaDecoder
import TestSupport
import Testing
import ThinkCompress

@Suite struct DecoderTests {
    static let recipe = "think(keys=0.4)+kivi(bits=2,residual=32)"

    private static func tokens(_ count: Int, model: LlamaModel) -> [Int32] {
        var random = SplitMix64(seed: 11)
        return (0..<count).map { _ in Int32.random(in: 3..<Int32(model.configuration.vocabularySize), using: &random) }
    }

    private static func decoder(_ name: String = "llama-3", threads: Int? = nil) throws -> TransformerDecoder {
        TransformerDecoder(model: try LlamaModel(path: ProjectFiles.fixture("models/\(name)")), threadCount: threads)
    }

    @Test(arguments: [
        "f16", "bf16", "f32", "kivi(bits=4)", recipe, "snapkv(keep=0.5)+kivi(bits=2)",
        "keydiff(tokens=99)+auto(bits=4)",
        "streaming(recent=64)+think(keys=0.4)",
    ])
    func compressingLayerByLayerGivesTheBytesOfTheWholeCache(text: String) async throws {
        let decoder = try Self.decoder()
        let tokens = Self.tokens(300, model: decoder.model)
        let recipe = try Recipe(text)
        let prefill = try await decoder.prefill(tokens, recipe: recipe, metadata: ["model.id": "x"])
        let full = try await decoder.fullCache(
            tokens,
            elementType: prefill.cache.shape.elementType,
            metadata: ["model.id": "x"]
        )
        let whole = try await CompressedCache(compressing: full, recipe: recipe)
        #expect(CacheContent(prefill.cache).difference(from: CacheContent(whole)) == nil)
        #expect(prefill.cache.tokens == tokens)
        #expect(prefill.cache.metadata["model.id"] == "x")
        #expect(prefill.cache.geometry.layers[0].queryHeads == 4)
    }

    @Test func threadsDoNotChangeWhatIsComputed() async throws {
        let tokens = Self.tokens(70, model: try Self.decoder().model)
        let one = try await Self.decoder(threads: 1).logits(tokens)
        let three = try await Self.decoder(threads: 3).logits(tokens)
        #expect(relativeError(three, one) < 1e-6)
    }

    @Test func aBatchGivesWhatEachCacheGivesAlone() async throws {
        let decoder = try Self.decoder()
        var caches: [CompressedCache] = []
        for count in [40, 75, 130] {
            let tokens = Self.tokens(count, model: decoder.model)
            caches.append(try await decoder.prefill(tokens, recipe: try Recipe(Self.recipe)).cache)
        }
        var alone = caches
        let next: [Int32] = [5, 9, 17]
        let together = try decoder.advance(&caches, with: next)
        let width = decoder.model.configuration.vocabularySize
        for index in alone.indices {
            let logits = try decoder.extend(&alone[index], with: [next[index]])
            #expect(relativeError(Array(together[index * width..<(index + 1) * width]), logits) < 1e-5)
            #expect(caches[index].tokens == alone[index].tokens)
        }
    }

    @Test func continuingACompressedCacheAttendsToItsPages() async throws {
        let decoder = try Self.decoder()
        let tokens = Self.tokens(200, model: decoder.model)
        let exact = try await decoder.prefill(tokens, recipe: try Recipe("f32"))
        var full = exact.cache
        var lossy = try await decoder.prefill(tokens, recipe: try Recipe("kivi(bits=4,residual=32)")).cache
        let rest = Self.tokens(30, model: decoder.model)
        let expected = try decoder.extend(&full, with: rest, logits: .all)
        let found = try decoder.extend(&lossy, with: rest, logits: .all)
        let error = relativeError(found, expected)
        #expect(error > 1e-4 && error < 0.2, "\(error)")
        #expect(lossy.tokenCount == 230)
    }

    @Test(arguments: [1, 20, 40])
    func logitsOfTheLastTokensAreThoseOfAll(count: Int) async throws {
        let decoder = try Self.decoder()
        let tokens = Self.tokens(40, model: decoder.model)
        let prompt = try await decoder.prefill(tokens, recipe: try Recipe("f16")).cache
        var (whole, part) = (prompt, prompt)
        let all = try decoder.extend(&whole, with: Array(tokens.prefix(20)), logits: .all)
        let last = try decoder.extend(&part, with: Array(tokens.prefix(20)), logits: .lastTokens(count))
        let width = decoder.model.configuration.vocabularySize
        #expect(relativeError(last, Array(all.suffix(min(count, 20) * width))) < 1e-5)
    }

    /// Short and long continuations, and windows of queries that reach into the prefix.
    @Test(arguments: [(5, 8), (30, 8), (270, 300)])
    func aFullCacheGoesOn(count: Int, window: Int) async throws {
        let decoder = try Self.decoder()
        let tokens = Self.tokens(100 + count, model: decoder.model)
        let whole = try await decoder.fullCache(tokens, elementType: .float32, queryWindow: window)
        let prefix = try await decoder.fullCache(Array(tokens.prefix(100)), elementType: .float32, queryWindow: window)
        let found = try await decoder.fullCache(Array(tokens[100...]), following: prefix, queryWindow: window)
        #expect(found.tokens == tokens && found.elementType == .float32)
        for (layer, expected) in zip(found.layers, whole.layers) {
            let pairs = [
                (layer.keys, expected.keys), (layer.values, expected.values),
                (try #require(layer.queries), try #require(expected.queries)),
            ]
            for (tensor, other) in pairs {
                #expect(tensor.tokens == other.tokens)
                #expect(relativeError(tensor.numbers, other.numbers) < 1e-5)
            }
        }
    }

    @Test(
        "prompts that are computed side by side give the bytes that each gives alone",
        arguments: ["llama-3", "gemma3"]
    )
    func layerwise(name: String) async throws {
        let decoder = try Self.decoder(name)
        let tokens = Self.tokens(300, model: decoder.model)
        let prompts = [tokens, Array(tokens[50..<120])]
        let caches = try LayerwisePrefill(prompts, elementType: .float32, decoder: decoder)
        var layers = prompts.map { _ in [KVCacheLayer]() }
        for _ in decoder.model.configuration.geometry.layers {
            for prompt in prompts.indices { layers[prompt].append(try caches.nextLayer(ofPrompt: prompt)) }
        }
        for (tokens, layers) in zip(prompts, layers) {
            let whole = try await decoder.fullCache(tokens, elementType: .float32, queryWindow: 1)
            for (layer, other) in zip(layers, whole.layers) {
                #expect(layer.keys.numbers == other.keys.numbers && layer.values.numbers == other.values.numbers)
                #expect(layer.queries?.numbers == other.queries?.numbers && layer.held == other.held)
            }
        }
        #expect(throws: ModelError.self) {
            try LayerwisePrefill([tokens, []], elementType: .float32, decoder: decoder)
        }
    }

    /// In full precision, and by the definition of causal attention.
    @Test(arguments: ["llama-3", "gemma3"])
    func attentionIsAddedUp(name: String) async throws {
        let decoder = try Self.decoder(name)
        let tokens = Self.tokens(300, model: decoder.model)
        let whole = try await decoder.fullCache(tokens, elementType: .float32, statistics: .accumulatedAttention)
        let plain = try await decoder.fullCache(tokens, elementType: .float32)
        let prefix = try await decoder.fullCache(
            Array(tokens.prefix(100)),
            elementType: .float32,
            statistics: .accumulatedAttention
        )
        let found = try await decoder.fullCache(Array(tokens[100...]), following: prefix)
        let geometry = decoder.model.configuration.attention
        let group = Double(geometry.queryHeads / geometry.kvHeads)
        for (index, layer) in whole.layers.enumerated() {
            let weights = try #require(layer.accumulatedAttention)
            #expect(plain.layers[index].accumulatedAttention == nil)
            #expect(relativeError(layer.keys.numbers, plain.layers[index].keys.numbers) < 1e-5)
            let other = try #require(found.layers[index].accumulatedAttention)
            for (list, otherList) in zip(weights, other) {
                #expect(abs(list.reduce(0, +) - 300 * group) < 0.01)
                // The last token is seen by its own query alone.
                #expect(list[299] <= group)
                for (one, two) in zip(list, otherList) { #expect(abs(one - two) < 1e-3 * (1 + one)) }
            }
        }
    }

    /// Layers with a sliding window, too, of prompts so long that their rows have moved.
    @Test("heavy hitters are those of all queries of the prompt", arguments: ["llama-3", "mistral", "gemma3"])
    func heavyHitters(name: String) async throws {
        let decoder = try Self.decoder(name)
        let tokens = Self.tokens(450, model: decoder.model)
        let cache = try await decoder.prefill(tokens, recipe: try Recipe("h2o(tokens=6)+f32")).cache
        let full = try await decoder.fullCache(tokens, elementType: .float32, statistics: .accumulatedAttention)
        #expect(cache.metadata["recipe.rationale"] == nil)
        for (index, layer) in cache.layers.enumerated() {
            let held = decoder.model.configuration.heldTokens(ofLayer: index, tokenCount: tokens.count)
            let kept = try #require(full.layers[index].accumulatedAttention).map { weights -> [UInt32] in
                let highest = (held.lowerBound..<447).sorted { weights[$0] > weights[$1] }.prefix(3).sorted()
                return (highest + Array(447..<450)).map(UInt32.init)
            }
            #expect(layer.held == .listed(kept))
        }
    }

    @Test func onlyAWholeCacheOfTheModelGoesOn() async throws {
        let decoder = try Self.decoder()
        let other = try await Self.decoder("qwen3").fullCache([1, 2, 3])
        let error = await #expect(throws: CodecError.self) { try await decoder.fullCache([4], following: other) }
        #expect(error?.code == .shapeMismatch)
        let own = try await decoder.fullCache([1, 2, 3])
        let missing = await #expect(throws: ModelError.self) { try await decoder.fullCache([], following: own) }
        #expect(missing?.code == .invalidTokens)
    }

    @Test func tokensAreChecked() async throws {
        let decoder = try Self.decoder()
        let recipe = try Recipe("f16")
        let few = Self.tokens(20, model: decoder.model)
        for (tokens, words) in [([], "no tokens"), ([128], "128"), ([-1], "-1")] as [([Int32], String)] {
            let error = await #expect(throws: ModelError.self) { try await decoder.prefill(tokens, recipe: recipe) }
            #expect(error?.code == .invalidTokens)
            #expect(error?.message.contains(words) == true)
        }
        let long = Self.tokens(513, model: decoder.model)
        let error = await #expect(throws: ModelError.self) { try await decoder.prefill(long, recipe: recipe) }
        #expect(error?.message.contains("513 tokens") == true && error?.message.contains("512 positions") == true)

        var cache = try await decoder.prefill(few, recipe: recipe).cache
        #expect(throws: ModelError.self) { try decoder.extend(&cache, with: Array(long.prefix(493))) }
        #expect(cache.tokenCount == 20)
    }

    @Test func cachesOfAnotherShapeAreRefused() async throws {
        let decoder = try Self.decoder()
        var other = try await Self.decoder("qwen3").prefill([1, 2, 3], recipe: try Recipe("f16")).cache
        #expect(throws: CodecError.self) { try decoder.extend(&other, with: [1]) }
        #expect(other.tokenCount == 3)
    }

    @Test func theQueryProfileIsTheMeanSquareOfAllQueries() async throws {
        let decoder = try Self.decoder()
        let tokens = Self.tokens(90, model: decoder.model)
        let profile = try await decoder.queryProfile(tokens)
        let full = try await decoder.fullCache(tokens, queryWindow: 90)
        #expect(profile.count == 2 && profile.allSatisfy { $0.count == 64 })
        for (layer, numbers) in profile.enumerated() {
            let queries = try #require(full.layers[layer].queries)
            #expect(queries.tokens == 90)
            for channel in stride(from: 0, to: 64, by: 13) {
                let (head, place) = (channel / 32, channel % 32)
                var sum = 0.0
                for member in 0..<2 {
                    for token in 0..<90 {
                        let value = Double(Self.value(queries, head: head * 2 + member, token: token, channel: place))
                        sum += value * value
                    }
                }
                #expect(abs(numbers[channel] - sum / 180) <= 1e-5 * sum / 180)
            }
        }
    }

    private static func value(_ tensor: KVTensor, head: Int, token: Int, channel: Int) -> Float {
        let offset = head * tensor.headStride + token * tensor.tokenStride + channel * 4
        return tensor.bytes.span.unsafeLoadUnaligned(fromByteOffset: offset, as: Float.self)
    }

    @Test func aProfileTakesTheQueriesPlace() async throws {
        let decoder = try Self.decoder()
        let tokens = Self.tokens(100, model: decoder.model)
        let recipe = try Recipe("think(keys=0.5)")
        // The channels of the first half of every head matter, the others not at all.
        let profile = [[Float]](repeating: (0..<64).map { $0 % 32 < 16 ? 1 : 0 }, count: 2)
        let layers = profile.map { LayerProfile(meanSquaredQueries: $0) }
        let cache = try await decoder.prefill(tokens, recipe: recipe, profile: layers).cache
        for layer in cache.layers {
            for plan in layer.plan.heads { #expect(plan.keyRuns.map(\.channels) == [(0..<16).map { $0 }]) }
        }
        #expect(cache.profile == profile)
    }

    @Test func valueChannelsAreWeighedByTheModelsOutput() async throws {
        let decoder = try Self.decoder()
        let model = decoder.model
        let tokens = Self.tokens(100, model: model)
        let full = try await decoder.fullCache(tokens, statistics: .outputWeights)
        let recipe = try Recipe("think(values=0.5)")
        let cache = try await decoder.prefill(tokens, recipe: recipe).cache
        let others = try await CompressedCache(
            compressing: KVCache(layers: full.layers.map { KVCacheLayer(keys: $0.keys, values: $0.values) }),
            recipe: recipe
        )
        let shape = model.configuration.attention
        for (index, layer) in full.layers.enumerated() {
            let weights = try model.outputWeightSquares(layer: index)
            #expect(layer.outputWeights == weights.map { Float($0) })
            let numbers = layer.values.numbers
            for (head, plan) in cache.layers[index].plan.heads.enumerated() {
                let scores = (0..<shape.valueDimension).map { channel in
                    let squares = (0..<100).reduce(0.0) { sum, row in
                        let number = Double(numbers[(head * 100 + row) * shape.valueDimension + channel])
                        return sum + number * number
                    }
                    return squares * weights[head * shape.valueDimension + channel]
                }
                let threshold = scores.sorted()[shape.valueDimension / 2]
                #expect(plan.valueKeepMask == scores.map { $0 >= threshold })
            }
        }
        #expect(cache.layers.map(\.plan) != others.layers.map(\.plan))
    }

    @Test func prefillCanBeCancelled() async throws {
        let decoder = try Self.decoder()
        let tokens = Self.tokens(200, model: decoder.model)
        let task = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await decoder.prefill(tokens, recipe: try Recipe("f16"))
        }
        await #expect(throws: CancellationError.self) { try await task.value }
    }

    @Test(
        "a prompt's layers hold what their attention sees, and go on as whole ones",
        arguments: ["mistral", "qwen3-window", "gemma3"]
    )
    func partialCachesGoOn(name: String) async throws {
        let decoder = try Self.decoder(name)
        // More than are computed together.
        let tokens = Self.tokens(400, model: decoder.model)
        let recipe = try Recipe("f32")
        let windows = decoder.model.configuration.slidingWindows
        #expect(windows.contains { $0 != nil })
        let full = try await decoder.fullCache(tokens, elementType: .float32)
        var whole = try await CompressedCache(compressing: full, recipe: recipe)
        #expect(whole.wholeOnlyReason == nil)
        var cache = try await decoder.prefill(tokens, recipe: recipe).cache
        for (layer, (original, window)) in zip(cache.layers, zip(full.layers, windows)) {
            let held = 400 - (window ?? 400)..<400
            #expect(layer.held == (window == nil ? .all : .last))
            #expect(layer.rowCount == held.count)
            let restored = try layer.decompress(rows: 0..<layer.rowCount, as: .float32)
            #expect(relativeError(restored.keys.numbers, original.keys[tokens: held].numbers) < 1e-5)
            #expect(relativeError(restored.values.numbers, original.values[tokens: held].numbers) < 1e-5)
        }
        #expect(cache.wholeOnlyReason != nil)
        #expect(decoder.reusableTokens(of: cache, for: tokens + [5]) == 400)
        #expect(decoder.reusableTokens(of: cache, for: Array(tokens.prefix(390)) + [5]) == 0)
        #expect(decoder.reusableTokens(of: cache, for: Array(tokens.prefix(390))) == 0)
        // The last token is computed again from what is held of it.
        #expect(decoder.reusableTokens(of: cache, for: tokens) == 400)
        let prefill = try await decoder.prefill(tokens, recipe: recipe)
        #expect(relativeError(try decoder.repeatLastToken(of: cache), prefill.logits) < 1e-5)
        #expect(relativeError(try decoder.repeatLastToken(of: whole), prefill.logits) < 1e-5)
        for next in [[5, 9, 17], [3], Array(repeating: 4, count: 40)] as [[Int32]] {
            let expected = try decoder.extend(&whole, with: next, logits: .all)
            #expect(relativeError(try decoder.extend(&cache, with: next, logits: .all), expected) < 1e-5)
        }
        /// The prompt's cache with so many rows fewer.
        func short(by count: Int) async throws -> CompressedCache {
            let layers = zip(full.layers, windows).map { layer, window in
                let held = 400 - (window.map { $0 - count } ?? 400)..<400
                return KVCacheLayer(
                    keys: layer.keys[tokens: held],
                    values: layer.values[tokens: held],
                    held: window == nil ? .all : .last
                )
            }
            return try await CompressedCache(
                compressing: try KVCache(layers: layers, tokenCount: 400, tokens: tokens),
                recipe: recipe
            )
        }
        // As other engines hold them: enough for tokens to come.
        let enough = try await short(by: 1)
        #expect(throws: Never.self) { try decoder.check(enough) }
        #expect(decoder.reusableTokens(of: enough, for: tokens + [5]) == 400)
        #expect(decoder.reusableTokens(of: enough, for: tokens) == 0)
        #expect(throws: CodecError.self) { try decoder.repeatLastToken(of: enough) }
        let tooShort = try await short(by: 2)
        let error = #expect(throws: CodecError.self) { try decoder.check(tooShort) }
        #expect(error?.code == .partialCache)
        #expect(error?.message.contains("of 400 tokens, and the model's attention sees") == true)
    }

    @Test(
        "a cache of selected tokens goes on at the next position, whole only",
        arguments: ["llama-3", "mistral", "gemma3"],
        ["streaming(recent=60)", "snapkv(keep=0.5,observe=8)", "h2o(keep=0.4)", "keydiff(tokens=100)"]
    )
    func selectedTokensGoOn(name: String, selection: String) async throws {
        let decoder = try Self.decoder(name)
        let tokens = Self.tokens(400, model: decoder.model)
        let next = [5, 9, 17] as [Int32]
        var cache = try await decoder.prefill(tokens, recipe: try Recipe("\(selection)+f32")).cache
        let held = cache.layers.map(\.held)
        #expect(cache.tokenCount == 400)
        #expect(decoder.reusableTokens(of: cache, for: tokens + next) == 400)
        #expect(decoder.reusableTokens(of: cache, for: Array(tokens.prefix(390)) + next) == 0)
        #expect(decoder.wholeOnlyReason(of: cache)?.hasSuffix("does not hold all tokens") == true)
        // Every head has the last token, which can be computed again.
        #expect(decoder.reusableTokens(of: cache, for: tokens) == 400)
        #expect(try decoder.repeatLastToken(of: cache).allSatisfy(\.isFinite))
        #expect(try decoder.extend(&cache, with: next).allSatisfy(\.isFinite))
        #expect(cache.tokens == tokens + next)
        // Keys of the first layer depend on token and position alone.
        let full = try await decoder.fullCache(tokens + next, elementType: .float32).layers[0]
        let layer = cache.layers[0]
        let rows = try layer.decompress(rows: layer.rowCount - 3..<layer.rowCount, as: .float32)
        #expect(relativeError(rows.keys.numbers, full.keys[tokens: 400..<403].numbers) < 1e-5)
        for (before, layer) in zip(held, cache.layers) {
            guard case .listed(let lists) = before else {
                #expect(layer.held == before)
                continue
            }
            #expect(layer.held == .listed(lists.map { $0 + [400, 401, 402] }))
        }
    }

    @Test("a cache that lists every token goes on as one that holds all")
    func allTokensListed() async throws {
        let decoder = try Self.decoder()
        let tokens = Self.tokens(150, model: decoder.model)
        let full = try await decoder.fullCache(tokens, elementType: .float32)
        let listed = try KVCache(
            layers: full.layers.map { layer in
                let lists = [[UInt32]](repeating: Array(0..<150), count: layer.keys.heads)
                return KVCacheLayer(keys: layer.keys, values: layer.values, held: .listed(lists))
            },
            tokens: tokens
        )
        var caches: [CompressedCache] = []
        for cache in [full, listed] {
            caches.append(try await CompressedCache(compressing: cache, recipe: Recipe("f32")))
        }
        let last = try caches.map { try decoder.repeatLastToken(of: $0) }
        #expect(last[0] == last[1])
        let whole = try decoder.extend(&caches[0], with: [7, 8], logits: .all)
        #expect(try decoder.extend(&caches[1], with: [7, 8], logits: .all) == whole)
    }

    @Test("a cache that lacks its last token can't compute it again")
    func lastTokenNotListed() async throws {
        let decoder = try Self.decoder()
        let tokens = Self.tokens(150, model: decoder.model)
        let full = try await decoder.fullCache(tokens)
        let cache = try KVCache(
            layers: full.layers.map { layer in
                let lists = [[UInt32]](repeating: Array(0..<149), count: layer.keys.heads)
                let rows = 0..<149
                return KVCacheLayer(
                    keys: layer.keys[tokens: rows],
                    values: layer.values[tokens: rows],
                    held: .listed(lists)
                )
            },
            tokens: tokens
        )
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("f16"))
        #expect(decoder.reusableTokens(of: compressed, for: tokens) == 0)
        #expect(throws: CodecError.self) { try decoder.repeatLastToken(of: compressed) }
    }

    @Test("a prompt that a window sees as a whole can be cut", arguments: [9, 10])
    func shortPromptsAreHeldWhole(count: Int) async throws {
        let decoder = try Self.decoder("gemma3")
        let tokens = Self.tokens(count, model: decoder.model)
        let cache = try await decoder.prefill(tokens, recipe: try Recipe("f32")).cache
        #expect((cache.wholeOnlyReason == nil) == (count == 9))
    }

    @Test(
        "a part of a text whose length its keys depend on is not taken for another",
        arguments: ["llama-dynamic", "mistral-longrope"]
    )
    func partsOfLongTexts(name: String) async throws {
        let decoder = try Self.decoder(name)
        #expect(decoder.model.configuration.rotary.lengthIndependentTokens == 36)
        #expect(decoder.model.configuration.maximumPositions == 144)
        let tokens = Self.tokens(60, model: decoder.model)
        let recipe = try Recipe("f32")
        let short = try await decoder.prefill(Array(tokens[..<36]), recipe: recipe).cache
        let long = try await decoder.prefill(tokens, recipe: recipe)
        #expect(decoder.wholeOnlyReason(of: short) == nil)
        #expect(decoder.reusableTokens(of: short, for: Array(tokens[..<35]) + [5]) == 35)
        // Beyond 36 tokens all keys would be others.
        #expect(decoder.reusableTokens(of: short, for: tokens) == 0)
        #expect(decoder.obsoleteReason(of: short, for: tokens)?.contains("beyond 36 tokens") == true)
        #expect(decoder.obsoleteReason(of: long.cache, for: tokens + [5]) == nil)
        #expect(decoder.wholeOnlyReason(of: long.cache)?.contains("60 tokens") == true)
        #expect(decoder.reusableTokens(of: long.cache, for: Array(tokens[..<59]) + [5]) == 0)
        #expect(decoder.reusableTokens(of: long.cache, for: tokens + [5]) == 60)
        // The last token is computed again for as many tokens as before.
        #expect(decoder.reusableTokens(of: long.cache, for: tokens) == 59)
        var cut = long.cache
        try cut.truncate(to: 59)
        let logits = try decoder.extend(&cut, with: [tokens[59]])
        #expect(relativeError(logits, long.logits) < 1e-5)
    }

    /// A text is computed in parts that don't show, and each of several texts is turned by its own length.
    @Test(arguments: ["llama-dynamic", "mistral-longrope"])
    func lengthsAreOfTexts(name: String) async throws {
        let decoder = try Self.decoder(name)
        let tokens = Self.tokens(50, model: decoder.model)
        let recipe = try Recipe("f32")
        var caches: [CompressedCache] = []
        for count in [30, 36, 49] {
            caches.append(try await decoder.prefill(Array(tokens[..<count]), recipe: recipe).cache)
        }
        let next: [Int32] = [7, 8, 9]
        var expected: [Float] = []
        for (cache, token) in zip(caches, next) {
            var alone = cache
            expected += try decoder.extend(&alone, with: [token])
        }
        #expect(relativeError(try decoder.advance(&caches, with: next), expected) < 1e-5)
    }
}
