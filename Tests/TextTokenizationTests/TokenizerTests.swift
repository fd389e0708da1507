import ByteStorage
import Foundation
import Testing
import TextTokenization

/// What tokenizers do with vocabularies and texts that trained ones rarely show.
@Suite struct TokenizerTests {
    @Test("a file without the type of the model, or with merges as text, is read", arguments: [true, false])
    func oldFiles(hasType: Bool) throws {
        var file = TokenizerFile()
        file.merges = ##"["#version: 0.2","a b","b c","ab c"]"##
        let json = hasType ? file.json : file.json.replacing(#""type":"BPE","#, with: "")
        let tokenizer = try Tokenizer(SharedBytes(Array(json.utf8)))
        #expect(try tokenizer.encode("abcbc ab") == [4, 5, 6, 3])
    }

    @Test("pairs are merged by rank, and of one rank from the left")
    func mergeOrder() throws {
        var file = TokenizerFile(vocabulary: #"{"a":0,"b":1,"aa":2,"ab":3,"aab":4,"aaaa":5}"#)
        file.merges = #"[["a","a"],["a","b"],["aa","b"],["aa","aa"]]"#
        let tokenizer = try file.tokenizer
        #expect(try tokenizer.encode("aaab") == [2, 3])
        #expect(try tokenizer.encode("aab") == [4])
        #expect(try tokenizer.encode("aaaaaaa") == [5, 2, 0])
    }

    @Test("of a merge that is there twice, the latter rank counts")
    func duplicateMerges() throws {
        var file = TokenizerFile()
        file.merges = #"[["a","b"],["b","c"],["a","b"]]"#
        #expect(try file.tokenizer.encode("abc") == [0, 5])
    }

    @Test("canonically equivalent tokens are different tokens")
    func canonicalEquivalents() throws {
        var file = TokenizerFile(
            vocabulary: "{\"\u{E9}\":0,\"e\u{301}\":1,\"e\":2,\"\u{301}\":3,\"\u{212B}\":4,\"\u{C5}\":5}"
        )
        file.merges = "[[\"e\",\"\u{301}\"]]"
        let tokenizer = try file.tokenizer
        #expect(tokenizer.id(of: "\u{E9}") == 0)
        #expect(tokenizer.id(of: "e\u{301}") == 1)
        #expect(tokenizer.id(of: "\u{212B}") == 4)
        #expect(try tokenizer.encode("\u{E9}e\u{301}\u{C5}\u{212B}e") == [0, 1, 5, 4, 2])
        #expect(bytes(tokenizer.decode([1, 0, 4, 5])) == bytes("e\u{301}\u{E9}\u{212B}\u{C5}"))
    }

    @Test("added tokens that are canonically equivalent are told apart")
    func canonicalAddedTokens() throws {
        var file = TokenizerFile()
        file.addedTokens =
            "[\(TokenizerFile.addedToken(7, "\u{E9}")),\(TokenizerFile.addedToken(8, "e\u{301}", flags: "-special"))]"
        let tokenizer = try file.tokenizer
        #expect(try tokenizer.encode("ae\u{301}\u{E9}b") == [0, 8, 7, 1])
        #expect(bytes(tokenizer.decode([8, 7])) == bytes("e\u{301}"))
    }

    @Test("the size counts from 0 to the largest id, and ids in holes are no tokens")
    func holes() throws {
        let tokenizer = try TokenizerFile(vocabulary: #"{"a":5,"b":1000000000,"c":2147483647,"ab":0,"abc":3,"bc":7}"#)
            .tokenizer
        #expect(tokenizer.vocabularySize == 2_147_483_648)
        #expect(try tokenizer.encode("abca") == [3, 5])
        #expect(tokenizer.decode([5, 1, 6, -1, .min, 7, .max]) == "abcc")
        #expect(tokenizer.decode([Int32]()) == "")
    }

    @Test("an empty vocabulary has no tokens")
    func emptyVocabulary() throws {
        let tokenizer = try TokenizerFile(vocabulary: "{}", merges: "[]").tokenizer
        #expect(tokenizer.vocabularySize == 0)
        #expect(tokenizer.modelVocabularySize == 0)
        #expect(try tokenizer.encode("abc") == [])
        #expect(tokenizer.decode([0, 1]) == "")
    }

    @Test("unknown characters are left out, replaced, or fused, as the file says")
    func unknownCharacters() throws {
        var file = TokenizerFile()
        #expect(try file.tokenizer.encode("axxb") == [3])
        file.modelFields = #""unk_token":"c","#
        #expect(try file.tokenizer.encode("axxa") == [0, 2, 2, 0])
        file.modelFields = #""unk_token":"c","fuse_unk":true,"#
        #expect(try file.tokenizer.encode("axxaxé") == [0, 2, 0, 2])
    }

    @Test("a token for unknown characters that isn't in the vocabulary matters only when it is needed")
    func missingUnknownToken() throws {
        let tokenizer = try TokenizerFile(modelFields: #""unk_token":"<unk>","#).tokenizer
        #expect(try tokenizer.encode("abc") == [4])
        let error = #expect(throws: TokenizerError.self) { try tokenizer.encode("abx") }
        #expect(error?.code == .unknownCharacter)
        #expect(error?.field == "model.unk_token")
        #expect(error?.message.contains("<unk>") == true)
    }

    @Test("characters are spelt in bytes only if all of the bytes have tokens")
    func byteFallback() throws {
        var file = TokenizerFile(vocabulary: #"{"a":0,"<0xC3>":1,"<0xA9>":2,"?":3}"#, merges: "[]")
        file.modelFields = #""byte_fallback":true,"unk_token":"?","#
        let tokenizer = try file.tokenizer
        #expect(try tokenizer.encode("aéèa") == [0, 1, 2, 3, 0])
        // The unknown one waits for a character that is in the vocabulary: so does the original.
        #expect(try tokenizer.encode("èéa") == [1, 2, 3, 0])
    }

    @Test("words of the vocabulary are tokens at once where merges are ignored")
    func ignoredMerges() throws {
        var file = TokenizerFile(merges: #"[["a","b"]]"#)
        #expect(try file.tokenizer.encode("abc") == [3, 2])
        file.modelFields = #""ignore_merges":true,"#
        #expect(try file.tokenizer.encode("abc") == [4])
        #expect(try file.tokenizer.encode("abca") == [3, 2, 0])
    }

    @Test("without a decoder there are spaces between tokens")
    func noDecoder() throws {
        let tokenizer = try TokenizerFile(decoder: "null").tokenizer
        #expect(tokenizer.decode([3, 99, 2, 0]) == "ab c a")
        var stream = tokenizer.makeTextStream()
        #expect([3, 99, 2, 0].map { stream.append($0) } == ["ab", "", " c", " a"])
        #expect(stream.finish() == "")
    }

    @Test("special tokens are left out only if that is wanted")
    func specialTokens() throws {
        var file = TokenizerFile()
        file.addedTokens =
            "[\(TokenizerFile.addedToken(7, "<s>")),\(TokenizerFile.addedToken(8, "<t>", flags: "-special"))]"
        let tokenizer = try file.tokenizer
        #expect(try tokenizer.encode("<s>a<t>") == [7, 0, 8])
        #expect(tokenizer.decode([7, 0, 8]) == "a<t>")
        #expect(tokenizer.decode([7, 0, 8], skippingSpecialTokens: false) == "<s>a<t>")
        #expect(tokenizer.id(of: "<s>") == 7)
        #expect(tokenizer.id(of: "<u>") == nil)
    }

    @Test("tokens that the model hasn't count for the size of the tokenizer, not of the model")
    func modelVocabularySize() throws {
        var file = TokenizerFile()
        #expect(try file.tokenizer.modelVocabularySize == 7)
        #expect(try file.tokenizer.vocabularySize == 7)
        file.addedTokens = "[\(TokenizerFile.addedToken(0, "a")),\(TokenizerFile.addedToken(7, "<pad>"))]"
        #expect(try file.tokenizer.modelVocabularySize == 7)
        #expect(try file.tokenizer.vocabularySize == 8)
    }

    @Test("what decodes to the text of a special token is left out, whatever its own text")
    func normalizedSpecialTokens() throws {
        let special = TokenizerFile.addedToken(7, "q")
        let other = TokenizerFile.addedToken(8, "Q", flags: "normalized -special")
        let tokenizer = try TokenizerFile(addedTokens: "[\(special),\(other)]", normalizer: #"{"type":"Lowercase"}"#)
            .tokenizer
        #expect(tokenizer.decode([8]) == "")
        #expect(tokenizer.decode([8], skippingSpecialTokens: false) == "q")
    }

    @Test("truncation and padding are ignored")
    func ignoredSettings() throws {
        let fields = #""truncation":{"max_length":1,"strategy":"LongestFirst","stride":0},"padding":{"pad_id":0},"#
        #expect(try TokenizerFile(fields: fields).tokenizer.encode("abc a") == [4, 6, 0])
    }

    @Test("a text whose many parts become too long together is refused")
    func manyGrowingParts() throws {
        let normalizer = #"{"type":"Prepend","prepend":"\#(String(repeating: "a", count: 100_000))"}"#
        let tokenizer = try TokenizerFile(
            addedTokens: "[\(TokenizerFile.addedToken(7, "<s>"))]",
            normalizer: normalizer
        ).tokenizer
        let text = String(repeating: "a<s>", count: 2000)
        let error = #expect(throws: TokenizerError.self) { try tokenizer.encode(text) }
        #expect(error?.code == .textTooLong)
    }

    @Test("a file that isn't there is a FileError, one that isn't JSON a TokenizerError")
    func paths() throws {
        #expect(throws: FileError.self) { try Tokenizer(path: "/nonexistent/tokenizer.json") }
        #expect(throws: TokenizerError.self) { try Tokenizer(path: #filePath) }
    }

    @Test("one tokenizer serves many tasks at once")
    func concurrentUse() async throws {
        let tokenizer = try TokenizerFile(
            preTokenizer: #"{"type":"Split","pattern":{"Regex":"\\s+"},"behavior":"Isolated","invert":false}"#
        ).tokenizer
        let expected = try tokenizer.encode("abc ab c a")
        try await withThrowingTaskGroup(of: [Int32].self) { group in
            for _ in 0..<8 { group.addTask { try (0..<50).map { _ in try tokenizer.encode("abc ab c a") }.last ?? [] } }
            for try await tokens in group { #expect(tokens == expected) }
        }
    }
}
