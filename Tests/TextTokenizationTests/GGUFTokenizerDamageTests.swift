import EngineFormats
import TestSupport
import Testing
import TextTokenization
import ThinkCompress

/// Tokenizers of damaged GGUF files give an error or work, and those that aren't supported are refused by name.
@Suite struct GGUFTokenizerDamageTests {
    typealias Entry = GGUFBuilder.Entry

    private static let texts = ["", "Hello, wörld! 12 <s>\n\n x", "e\u{301}\0\u{10FFFF}▁ <|im_end|>  ab<s>bc abc"]

    static let byteLevel = GGUFBuilder([
        Entry("tokenizer.ggml.model", .string("gpt2")), Entry("tokenizer.ggml.pre", .string("smollm")),
        Entry(
            "tokenizer.ggml.tokens",
            .strings(["<s>", "a", "b", "c", "Ġ", "ab", "Ġab", "abc", "é ", "<0xC3>", "", "<|im_end|>"])
        ),
        Entry("tokenizer.ggml.token_type", .int32s([3, 1, 1, 1, 1, 1, 1, 1, 4, 6, 5, 1])),
        Entry("tokenizer.ggml.merges", .strings(["a b", "Ġ ab", "ab c", "a b"])),
        Entry("tokenizer.ggml.add_bos_token", .bool(true)), Entry("tokenizer.ggml.bos_token_id", .uint32(0)),
        Entry("tokenizer.ggml.add_eos_token", .bool(true)), Entry("tokenizer.ggml.eos_token_id", .uint32(11)),
    ])
    /// A vocabulary that is too small for llama.cpp's own choice of a beginning.
    private static var oneToken: GGUFBuilder {
        var file = byteLevel
        file["tokenizer.ggml.tokens"] = .strings(["a"])
        file["tokenizer.ggml.token_type"] = nil
        file["tokenizer.ggml.merges"] = .strings([])
        file["tokenizer.ggml.eos_token_id"] = .uint32(0)
        return file
    }
    static let scores = GGUFBuilder([
        Entry("tokenizer.ggml.model", .string("llama")),
        Entry(
            "tokenizer.ggml.tokens",
            .strings(["<unk>", "<s>", "</s>", "a", "b", "c", "▁", "ab", "▁ab", "abc", "<0xC3>", "<0x0A>"])
        ),
        Entry("tokenizer.ggml.scores", .float32s([0, 0, 0, -1, -1, -1, -1, -2, -3, -4, 0, 0])),
        Entry("tokenizer.ggml.token_type", .int32s([2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 6, 6])),
        Entry("tokenizer.ggml.add_space_prefix", .bool(true)),
    ])

    private static func tokenizer(_ file: GGUFBuilder) throws -> Tokenizer {
        try Tokenizer(try GGUFFile(SharedBytes(file.file)))
    }

    @Test("the files themselves are sound")
    func soundFiles() throws {
        let byteLevel = try Self.tokenizer(Self.byteLevel)
        #expect(try byteLevel.encode("ab abc<s>é ") == [0, 5, 6, 3, 0, 8, 11])
        #expect(byteLevel.decode([0, 5, 6, 3, 8, 10, 11]) == "ab abcé ")
        #expect(byteLevel.decode([0, 5], skippingSpecialTokens: false) == "<s>ab")
        #expect(byteLevel.vocabularySize == 12)
        #expect(byteLevel.modelVocabularySize == 12)
        #expect(byteLevel.id(of: "Ġab") == 6)
        #expect(byteLevel.id(of: "<s>") == 0)
        #expect(byteLevel.id(of: "[EMPTY_10]") == 10)
        let scores = try Self.tokenizer(Self.scores)
        #expect(try scores.encode("ab\nabc") == [1, 8, 11, 9])
        #expect(scores.decode([1, 8, 11, 9]) == "ab\nabc")
        #expect(try scores.encode("") == [1])
    }

    @Test("a character that the vocabulary can't spell is an error")
    func unknownCharacter() throws {
        let tokenizer = try Self.tokenizer(Self.scores)
        let error = #expect(throws: TokenizerError.self) { try tokenizer.encode("aé") }
        #expect(error?.code == .unknownCharacter)
        #expect(error?.message.contains("its byte 169") == true)
    }

    // MARK: - Refusals

    struct Case: Sendable, CustomTestStringConvertible {
        let message: String
        let code: TokenizerError.Code
        var file: GGUFBuilder

        var testDescription: String { message }

        init(
            _ file: GGUFBuilder,
            _ key: String,
            _ value: GGUFBuilder.Value?,
            _ message: String,
            _ code: TokenizerError.Code = .damaged
        ) {
            self.file = file
            self.file["tokenizer.ggml.\(key)"] = value
            self.message = "metadata 'tokenizer.ggml.\(key)\(message)"
            self.code = code
        }
    }

    @Test(
        "what is wrong is named",
        arguments: ["bert", "t5", "rwkv", "plamo2", "gemma4", "gpt3"].map {
            Case(byteLevel, "model", .string($0), "' is \"\($0)\", which is not supported; use a", .unsupported)
        }
            + ["deepseek-llm", "gpt2", "Llama-bpe"].map {
                Case(byteLevel, "pre", .string($0), "' is \"\($0)\", which is not supported; use a", .unsupported)
            }
            + [
                Case(byteLevel, "model", nil, "' is missing"),
                Case(byteLevel, "model", .uint32(1), "' is of the type uint32, must be a string"),
                Case(byteLevel, "tokens", nil, "' is missing"),
                Case(byteLevel, "tokens", .strings([]), "' must be strings, at least one"),
                Case(byteLevel, "tokens", .int32s([1]), "' must be strings, at least one"),
                Case(byteLevel, "tokens", .strings(["a", "b", "a"]), "[2]' is there twice"),
                Case(byteLevel, "tokens", .strings(["a", "[EMPTY_2]", ""]), "[2]' is there twice"),
                Case(byteLevel, "tokens", .array(8, [.raw(8, [1, 0, 0, 0, 0, 0, 0, 0, 0xC3])]), "[0]' is not UTF-8"),
                Case(
                    byteLevel,
                    "tokens",
                    .strings(["a", String(repeating: "b", count: 65_536)]),
                    "[1]' has more than 65535 bytes"
                ),
                Case(byteLevel, "token_type", .int32s([1, 1]), "' has 2 elements for 12 tokens"),
                Case(byteLevel, "token_type", .strings(["x"]), "' has 1 elements for 12 tokens"),
                Case(
                    byteLevel,
                    "token_type",
                    .float32s([Float](repeating: 1, count: 12)),
                    "[0]' is of the type float32, must be a whole number"
                ),
                Case(byteLevel, "merges", nil, "' is missing"),
                Case(byteLevel, "merges", .int32s([1]), "' must be strings"),
                Case(byteLevel, "merges", .strings(["a b", "ab"]), "[1]' must be two tokens with a space between"),
                Case(byteLevel, "merges", .strings(["a b c"]), "[0]' must be two tokens with a space between"),
                Case(byteLevel, "merges", .strings(["a x"]), "[0]' needs the token \"x\", which the vocabulary hasn't"),
                Case(byteLevel, "merges", .strings(["b c"]), "[0]' needs the token \"bc\", which the vocabulary"),
                Case(byteLevel, "bos_token_id", .uint32(12), "' is 12, must be 0...11"),
                Case(byteLevel, "eos_token_id", .int32(-2), "' is -2, must be 0...11"),
                Case(byteLevel, "add_bos_token", .uint32(1), "' is of the type uint32, must be true or false"),
                Case(scores, "scores", nil, "' is missing"),
                Case(scores, "scores", .float32s([1]), "' has 1 elements for 12 tokens"),
                Case(scores, "scores", .float32s([Float](repeating: .nan, count: 12)), "[0]' is nan, must be a finite"),
                Case(scores, "add_space_prefix", .string("x"), "' is of the type string, must be true or false"),
                Case(oneToken, "bos_token_id", nil, "' is missing"),
                Case(oneToken, "bos_token_id", .int32(-1), "' says that there is none, but one must be put"),
                Case(oneToken, "bos_token_id", .uint32(.max), "' says that there is none, but one must be put"),
                Case(oneToken, "eos_token_id", .uint32(.max), "' says that there is none, but one must be put"),
                Case(byteLevel, "fim_pre_token_id", .string("a"), "' is of the type string, must be a whole number"),
                Case(
                    {
                        var file = scores
                        file["tokenizer.ggml.token_type"] = .int32s([3])
                        file["tokenizer.ggml.add_bos_token"] = .bool(false)
                        file["tokenizer.ggml.scores"] = .float32s([0])
                        return file
                    }(),
                    "tokens",
                    .strings([String(repeating: "x", count: 129)]),
                    "' has a special token of 129 bytes, number 0; supported are 128",
                    .unsupported
                ),
            ]
    )
    func refusals(_ test: Case) {
        let error = #expect(throws: TokenizerError.self) { try Self.tokenizer(test.file) }
        #expect(error?.code == test.code, "\(error?.description ?? "")")
        #expect(error?.message.hasPrefix(test.message) == true, "\(error?.description ?? "")")
    }

    @Test("files that don't say the pre-tokenizer, or the types of tokens, have llama.cpp's own")
    func oldFiles() throws {
        var file = Self.byteLevel
        let expected = try Self.tokenizer(file).encode("ab abc<|im_end|>", addingSpecialTokens: false)
        file["tokenizer.ggml.pre"] = nil
        file["tokenizer.ggml.token_type"] = nil
        #expect(try Self.tokenizer(file).encode("ab abc<|im_end|>", addingSpecialTokens: false) == expected)
        // <s> is a token like others then, which merges don't lead to.
        #expect(try Self.tokenizer(file).encode("<s>", addingSpecialTokens: false) == [])
    }

    @Test("of special tokens that are as long and overlap, the one with the least number is found")
    func overlappingSpecialTokens() throws {
        var file = Self.byteLevel
        file["tokenizer.ggml.tokens"] = .strings(["a", "b", "ab", "ba", "<s>"])
        file["tokenizer.ggml.token_type"] = .int32s([1, 1, 4, 4, 3])
        file["tokenizer.ggml.merges"] = .strings([])
        for key in ["bos", "eos"] { file["tokenizer.ggml.\(key)_token_id"] = .uint32(4) }
        let tokenizer = try Self.tokenizer(file)
        #expect(try tokenizer.encode("bab", addingSpecialTokens: false) == [1, 2])
        #expect(try tokenizer.encode("baba<s>b", addingSpecialTokens: false) == [1, 2, 0, 4, 1])
    }

    @Test("a key that names no token leaves those to be found by their texts")
    func namesOutsideTheVocabulary() throws {
        var file = Self.byteLevel
        file["tokenizer.ggml.tokens"] = .strings(["<", "|", "<|fim_prefix|>", "<s>"])
        file["tokenizer.ggml.token_type"] = nil
        file["tokenizer.ggml.merges"] = .strings([])
        for key in ["bos", "eos"] { file["tokenizer.ggml.\(key)_token_id"] = .uint32(3) }
        for (number, isFound) in [(UInt32.max, true), (4, true), (0, false)] {
            file["tokenizer.ggml.fim_pre_token_id"] = .uint32(number)
            let tokens = try? Self.tokenizer(file).encode("<|fim_prefix|>", addingSpecialTokens: false)
            #expect((tokens == [2]) == isFound)
        }
    }

    // MARK: - Damage

    /// Uses a tokenizer for all that it can do; false if its file is refused.
    private static func use(_ bytes: [UInt8]) -> Bool {
        guard let file = try? GGUFFile(SharedBytes(bytes)), let tokenizer = try? Tokenizer(file) else { return false }
        tokenizer.expectSoundTokens(of: texts)
        return true
    }

    @Test("files with changed bytes", arguments: [byteLevel, scores], 1...4 as ClosedRange<UInt64>)
    func changedBytes(file: GGUFBuilder, seed: UInt64) {
        var generator = SplitMix64(seed: seed)
        let sound = file.file
        var used = 0
        for _ in 0..<300 {
            var bytes = sound
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                let place = Int.random(in: 0..<bytes.count, using: &generator)
                bytes[place] =
                    Bool.random(using: &generator) ? .random(in: 0...255, using: &generator) : bytes[place] ^ 1
            }
            if Self.use(bytes) { used += 1 }
        }
        #expect((1..<300).contains(used))
    }

    @Test("files cut anywhere are refused", arguments: [byteLevel, scores])
    func everyTruncation(file: GGUFBuilder) {
        let sound = file.header
        for count in sound.indices { #expect(!Self.use(Array(sound[..<count]))) }
    }

    // MARK: - Long texts

    @Test("long texts are merged by scores without quadratic time", arguments: ["a", "ab", "abc ", "▁", "\n"])
    func longTexts(part: String) throws {
        let tokenizer = try Self.tokenizer(Self.scores)
        let text = String(repeating: part, count: 20_000)
        var tokens: [Int32] = []
        let time = ThreadTime.spent { tokens = (try? tokenizer.encode(text)) ?? [] }
        let isWhole = bytes(tokenizer.decode(tokens)) == bytes(text.replacing("▁", with: " "))
        #expect(isWhole)
        #expect(time < .seconds(8), "\(time)")
    }

    @Test("special tokens in a row don't take quadratic time")
    func specialTokens() throws {
        let tokenizer = try Self.tokenizer(Self.byteLevel)
        let text = String(repeating: "<s>é <s", count: 10_000)
        #expect(try tokenizer.encode(text, addingSpecialTokens: false).count == 20_000)
    }
}
