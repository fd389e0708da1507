import TestSupport
import Testing

@testable import TextTokenization

/// Patterns for Oniguruma, matched by ICU.
@Suite struct RegularExpressionTests {

    private static func matches(_ pattern: String, in text: String) throws -> [String] {
        let expression = try RegularExpression(pattern, field: "pattern")
        let budget = WorkBudget(textBytes: text.utf8.count)
        let bytes = Array(text.utf8)
        return try expression.matches(in: bytes[...], budget: budget).map {
            String(decoding: bytes[$0], as: UTF8.self)
        }
    }

    @Test(
        "what means something else in ICU is rewritten",
        arguments: [
            (#"\s\S"#, #"\p{White_Space}\P{White_Space}"#), (#"[^\s\S]"#, #"[^\p{White_Space}\P{White_Space}]"#),
            (#"\\s\\\s"#, #"\\s\\\p{White_Space}"#), (#"[\\s]"#, #"[\\s]"#), (#"\p{^L}\P{^N}"#, #"\P{L}\p{N}"#),
            (#"(?m:.)"#, "(?s:.)"), (#"\h[\h]"#, "[0-9a-fA-F][[0-9a-fA-F]]"), (#"a++b*+c?+"#, "(?>a+)(?>b*)(?>c?)"),
            (#"[^\p{L}]?+\p{N}++"#, #"(?>[^\p{L}]?)(?>\p{N}+)"#), ("(?:a|b)++", "(?:a|b)++"), ("[+*]+?", "[+*]+?"),
            ("a{2,3}?", "a{2,3}?"), ("a{b", "a{b"), (#"\Z"#, #"(?=\n?\z)"#), (#"\v"#, #"\x0B"#),
            (#"\u00e9++\x41++"#, #"(?>\u00e9+)(?>\x41+)"#), (#"[\x{e9}-\u00ff]\x411"#, #"[\x{e9}-\u00ff]\x411"#),
        ]
    )
    func translation(pattern: String, expected: String) throws {
        #expect(try RegexTranslation(pattern).pattern == expected)
    }

    @Test(
        "what can't be rewritten is refused",
        arguments: [
            "(?<name>a)", "(?#comment)", "(?x: a)", "a(?i)b", #"\K"#, #"\R"#, #"\X"#, #"\G"#, #"\y"#, #"\g<1>"#,
            #"\k<n>"#,
            #"\N"#, #"\x"#, #"\x4"#, #"\xe9"#, #"\x{41 42}"#, #"\x{41"#, #"\u41"#, #"\c"#, #"\0"#, "[[:alpha:]]",
            #"\p{Alnum}"#, #"\p{punct}"#, #"\pL"#, #"\p{L"#, "[a--b]", "[]a]",
            "[^]a]",
            "a{2}+", "a{2,}+", "a{2}?", #"a\"#, #"[\A]"#,
        ]
    )
    func refusals(pattern: String) throws {
        #expect(throws: TokenizerError.self) { try RegexTranslation(pattern) }
    }

    @Test(
        "patterns that ICU refuses are refused",
        arguments: ["(", ")", "[a", "*", "a**", #"\p{NoSuchThing}"#, "(?<=a+)b"]
    )
    func invalidPatterns(pattern: String) throws {
        let error = #expect(throws: TokenizerError.self) { try RegularExpression(pattern, field: "pattern") }
        #expect(error?.code == .unsupported)
    }

    @Test("places are those of bytes, whatever the characters")
    func places() throws {
        #expect(try Self.matches(#"\p{L}+"#, in: "aé😀漢字 e\u{301}x𐐀") == ["aé", "漢字", "e", "x𐐀"])
        #expect(try Self.matches("😀|é", in: "é😀e\u{301}😀é") == ["é", "😀", "😀", "é"])
        #expect(try Self.matches(".", in: "\r\n👨\u{200D}👩") == ["\r", "👨", "\u{200D}", "👩"])
        #expect(
            try Self.matches(#"\s"#, in: "a\u{B}\u{85}\u{A0}\u{200B}\u{3000}") == [
                "\u{B}", "\u{85}", "\u{A0}", "\u{3000}",
            ]
        )
    }

    @Test("an empty match right after a match is left out, others are kept")
    func emptyMatches() throws {
        #expect(try Self.matches("x*", in: "axxb") == ["", "xx", ""])
        #expect(try Self.matches("^", in: "a\nb\r\u{2028}c") == ["", ""])
    }

    @Test(
        "a pattern that takes exponential or quadratic time is an error, not a hang",
        arguments: [("(a+)+$b", 60), ("(?:(?>a*)b|a)*", 80_000)]
    )
    func tooMuchTime(pattern: String, count: Int) throws {
        let expression = try RegularExpression(pattern, field: "pattern")
        let text = [UInt8](repeating: UInt8(ascii: "a"), count: count)
        let budget = WorkBudget(nanoseconds: 50_000_000)
        var error: TokenizerError?
        let time = ThreadTime.spent {
            error = #expect(throws: TokenizerError.self) { try expression.matches(in: text[...], budget: budget) }
        }
        #expect(error?.code == .tooMuchWork)
        #expect(time < .seconds(5), "\(time)")
    }

    @Test("a pattern that needs too much memory is an error, not a wrong result")
    func tooMuchMemory() throws {
        let expression = try RegularExpression("(?:a|b)+", field: "pattern")
        let text = [UInt8](repeating: UInt8(ascii: "a"), count: 2_000_000)
        let budget = WorkBudget(textBytes: text.count)
        let error = #expect(throws: TokenizerError.self) { try expression.matches(in: text[...], budget: budget) }
        #expect(error?.code == .tooMuchWork)
    }
}
