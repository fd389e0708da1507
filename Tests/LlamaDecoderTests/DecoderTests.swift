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

    @Test(arguments: ["f16", "bf16", "f32", "kivi(bits=4)", recipe])
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
        #expect(prefill.cache.metadata == ["model.id": "x"])
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
        let cache = try await decoder.prefill(tokens, recipe: recipe, profile: profile).cache
        for layer in cache.layers {
            for plan in layer.plan.heads { #expect(plan.keyRuns.map(\.channels) == [(0..<16).map { $0 }]) }
        }
        #expect(cache.profile == profile)
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
        "a cache whose layers hold what their attention sees goes on as the whole one",
        arguments: ["mistral", "qwen3-window"]
    )
    func partialCachesGoOn(name: String) async throws {
        let decoder = try Self.decoder(name)
        let tokens = Self.tokens(100, model: decoder.model)
        let recipe = try Recipe("f32")
        var whole = try await decoder.prefill(tokens, recipe: recipe).cache
        let windows = decoder.model.configuration.slidingWindows
        #expect(windows.contains { $0 != nil })
        /// The layers' last tokens, so many fewer than what attention sees before the next one.
        func partial(missing: Int) async throws -> CompressedCache {
            let layers = try zip(whole.layers, windows).map { layer, window in
                let rows = (window.map { 100 - ($0 - 1 - missing) } ?? 0)..<100
                let part = try layer.decompress(rows: rows, as: .float32)
                return KVCacheLayer(keys: part.keys, values: part.values, held: window == nil ? .all : .last)
            }
            let cache = try KVCache(layers: layers, tokenCount: 100, tokens: tokens)
            return try await CompressedCache(compressing: cache, recipe: recipe)
        }
        var cache = try await partial(missing: 0)
        let short = try await partial(missing: 1)
        #expect(cache.wholeOnlyReason != nil)
        #expect(TextGenerator.reusableTokens(of: cache, for: tokens + [5]) == 100)
        #expect(TextGenerator.reusableTokens(of: cache, for: tokens) == 0)
        #expect(TextGenerator.reusableTokens(of: cache, for: Array(tokens.prefix(90)) + [5]) == 0)
        for next in [[5, 9, 17], [3], Array(repeating: 4, count: 40)] as [[Int32]] {
            let expected = try decoder.extend(&whole, with: next, logits: .all)
            #expect(relativeError(try decoder.extend(&cache, with: next, logits: .all), expected) < 1e-5)
        }
        let error = #expect(throws: CodecError.self) { try decoder.check(short) }
        #expect(error?.code == .partialCache)
        #expect(error?.message.contains("of 100 tokens, and the model's attention sees") == true)
    }
}
