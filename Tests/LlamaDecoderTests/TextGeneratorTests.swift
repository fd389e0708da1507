import Foundation
import KVCacheCodecs
import LlamaDecoder
import TestSupport
import Testing
import TextTokenization
import ThinkCompress

/// Generation with the demo model, from a text with a needle in it.
@Suite struct TextGeneratorTests {
    private static let question = " What is the magic number for lantern? The magic number for lantern is "

    private static func haystack(_ model: LlamaModel, tokens count: Int) throws -> String {
        let text = try String(contentsOfFile: "\(DemoModel.path)/text/python-manual.txt", encoding: .utf8)
        let start = text.prefix(count * 2)
        return start + " The magic number for lantern is 48213." + text.dropFirst(start.count).prefix(count * 2)
    }

    private static func generate(
        _ decoder: TransformerDecoder,
        _ text: String,
        from cache: CompressedCache? = nil,
        recipe: String = "f16",
        maximumTokens: Int = 24
    ) async throws -> TextGenerator.Result {
        let generator = TextGenerator(decoder: decoder, maximumTokens: maximumTokens)
        return try await generator.generate(
            try decoder.model.tokens(of: text),
            from: cache,
            recipe: try Recipe(recipe)
        )
    }

    @Test(arguments: [150, 420]) func anExactCacheGivesTheSameTokens(length: Int) async throws {
        let decoder = TransformerDecoder(model: try DemoModel.open())
        let text = try Self.haystack(decoder.model, tokens: length)
        let cache = try await decoder.prefill(try decoder.model.tokens(of: text), recipe: try Recipe("f16")).cache
        let without = try await Self.generate(decoder, text + Self.question)
        let with = try await Self.generate(decoder, text + Self.question, from: cache)
        #expect(with.tokens == without.tokens)
        #expect(without.reusedTokens == 0)
        #expect(with.reusedTokens >= cache.tokenCount - 1)
        #expect(decoder.model.tokenizer.decode(with.tokens).hasPrefix("48213."))
    }

    @Test func aCompressedCacheStillHasTheNeedle() async throws {
        let decoder = TransformerDecoder(model: try DemoModel.open())
        let text = try Self.haystack(decoder.model, tokens: 300)
        let recipe = "think(keys=0.4)+kivi(bits=2)"
        let cache = try await decoder.prefill(try decoder.model.tokens(of: text), recipe: try Recipe(recipe)).cache
        let result = try await Self.generate(decoder, text + Self.question, from: cache, maximumTokens: 4)
        #expect(decoder.model.tokenizer.decode(result.tokens).hasPrefix("48213."))
        #expect(result.cache.recipe?.description == recipe)
    }

    @Test func aCacheThatSharesAPrefixIsCutThere() async throws {
        let decoder = TransformerDecoder(model: try DemoModel.open())
        let text = try Self.haystack(decoder.model, tokens: 200)
        let cache = try await decoder.prefill(try decoder.model.tokens(of: text), recipe: try Recipe("f16")).cache
        let other = String(text.prefix(300)) + " Something else follows here. The value is "
        let expected = try await Self.generate(decoder, other)
        let result = try await Self.generate(decoder, other, from: cache)
        #expect(result.tokens == expected.tokens)
        #expect(result.reusedTokens > 50 && result.reusedTokens < cache.tokenCount)
        #expect(result.cache.tokens?.starts(with: try decoder.model.tokens(of: other)) == true)
    }

    @Test func aPromptThatIsTheCachesTextIsAnswered() async throws {
        let decoder = TransformerDecoder(model: try DemoModel.open())
        let text = try Self.haystack(decoder.model, tokens: 100) + Self.question
        let tokens = try decoder.model.tokens(of: text)
        let cache = try await decoder.prefill(tokens, recipe: try Recipe("f16")).cache
        let result = try await Self.generate(decoder, text, from: cache)
        #expect(result.reusedTokens == tokens.count - 1)
        #expect(result.tokens == (try await Self.generate(decoder, text)).tokens)
    }

    /// Every text begins with the same token: to share no more than that is to share nothing.
    @Test func aCacheThatSharesNothingIsNotUsed() async throws {
        let decoder = TransformerDecoder(model: try DemoModel.open())
        let tokens = try decoder.model.tokens(of: String(repeating: "Another text, which goes on for long. ", count: 8))
        let cache = try await decoder.prefill(tokens, recipe: try Recipe("kivi(bits=2)")).cache
        let result = try await Self.generate(decoder, "The value is ", from: cache, maximumTokens: 3)
        #expect(result.reusedTokens == 0)
        #expect(result.cache.recipe?.description == "f16")
        #expect(result.tokens == (try await Self.generate(decoder, "The value is ", maximumTokens: 3)).tokens)
    }

    @Test func generationEndsWhereItMust() async throws {
        let model = try LlamaModel(path: ProjectFiles.fixture("models/llama-3"))
        let decoder = TransformerDecoder(model: model)
        let prompt = (0..<505).map { Int32($0 % 30 + 4) }
        let generator = TextGenerator(decoder: decoder, maximumTokens: 100)
        let result = try await generator.generate(prompt, recipe: try Recipe("f16"))
        // 512 positions: the last token made needs none. An end token may come before.
        #expect(result.tokens.count <= 8)
        #expect(result.cache.tokenCount <= 512)
        #expect(result.tokens.allSatisfy { !model.configuration.endTokens.contains($0) })
        #expect(result.timeToFirstToken > .zero)
    }
}
