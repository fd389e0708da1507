import Testing
import TextTokenization

/// Long texts of one kind: no crash, no quadratic time, and nothing cut off.
@Suite struct LongTextTests {
    private static func check(_ part: String, _ name: String, byteCount: Int) throws {
        let tokenizer = try FixtureTests.Fixture(name: name).tokenizer()
        let text = String(repeating: part, count: byteCount / part.utf8.count)
        let tokens = try tokenizer.encode(text, addingSpecialTokens: false)
        // ▁ is a space to Llama 2.
        let expected = name == "llama2" && part == "▁" ? String(repeating: " ", count: byteCount / 3) : text
        // Not in the expectation, which would take the text apart to tell a difference.
        let isWhole = bytes(tokenizer.decode(tokens)) == bytes(expected)
        #expect(isWhole)
    }

    @Test(
        "long texts come back whole",
        arguments: [
            "a", "the", " ", "\n", " \n", "7", "😀", "é", "漢", "!?", "a ", "▁", "<|endoftext", "👨\u{200D}👩\u{200D}👧",
        ],
        ["gpt2", "llama3", "several-splits", "llama2"]
    )
    func longTexts(part: String, name: String) throws { try Self.check(part, name, byteCount: 1 << 13) }

    @Test("much longer ones, too", arguments: [("a", "llama2"), (" ", "gpt2"), ("7", "llama3"), ("😀", "qwen2")])
    func longerTexts(part: String, name: String) throws { try Self.check(part, name, byteCount: 1 << 16) }

    @Test("long runs of marks are put in order without quadratic time", arguments: ["qwen2", "normalizers"])
    func longMarks(name: String) throws {
        let tokenizer = try FixtureTests.Fixture(name: name).tokenizer()
        let count = 1 << 15
        let mixed = try tokenizer.encode("e" + String(repeating: "\u{301}\u{316}", count: count))
        let ordered = "e" + String(repeating: "\u{316}", count: count) + String(repeating: "\u{301}", count: count)
        #expect(try tokenizer.encode(ordered) == mixed)
    }

    @Test("long words are merged as short ones are")
    func longWord() throws {
        let tokenizer = try TokenizerFile().tokenizer
        // Far from what a text of that length may cost, also under sanitizers on a busy machine.
        #expect(try tokenizer.encode(String(repeating: "abc", count: 20_000)) == [Int32](repeating: 4, count: 20_000))
    }

    @Test(
        "added tokens of white space that take in white space don't take quadratic time",
        arguments: ["lstrip", "rstrip"]
    )
    func addedSpaces(flag: String) throws {
        let token = TokenizerFile.addedToken(7, #"\n\n"#, flags: flag)
        let tokenizer = try TokenizerFile(addedTokens: "[\(token)]").tokenizer
        let tokens = try tokenizer.encode(String(repeating: "\n", count: 100_000))
        #expect(tokens == [Int32](repeating: 7, count: 50_000))
    }

    @Test("an added token of the longest kind is found in a text that nearly has it")
    func longAddedToken() throws {
        let content = String(repeating: "x", count: 127) + "y"
        let tokenizer = try TokenizerFile(addedTokens: "[\(TokenizerFile.addedToken(7, content))]").tokenizer
        #expect(try tokenizer.encode(String(repeating: "x", count: 20_000) + "y") == [7])
    }
}
