import ByteStorage
import Testing

@testable import TextTokenization

/// Reading JSON: what RFC 8259 allows, byte for byte, and every way to be broken.
@Suite struct JSONDocumentTests {
    private static func root(_ text: String) throws -> JSONValue { try root(Array(text.utf8)) }
    private static func root(_ bytes: [UInt8]) throws -> JSONValue { try JSONDocument(SharedBytes(bytes)).root }

    private static func refusal(_ bytes: [UInt8]) -> TokenizerError? {
        #expect(throws: TokenizerError.self) { try root(bytes) }
    }

    @Test("members come by name, elements in order")
    func structure() throws {
        let root = try Self.root(
            #" { "a" : [ 1 , "x", null,true , false, {}, [] ] ,"b":{"c":{"d":[[7]]}}, "e":-1.5e+3 } "#
        )
        let elements = try root.required("a").elements()
        #expect(elements.map(\.kind) == [.number, .string, .null, .true, .false, .object, .array])
        #expect(elements.map(\.path) == (0..<7).map { "a[\($0)]" })
        #expect(try elements[0].number() == 1)
        #expect(try elements[3].bool())
        #expect(try root.required("b").required("c").required("d").elements()[0].elements()[0].number() == 7)
        #expect(try root.member("z") == nil)
        #expect(try root.required("a").elements()[2].kind == .null)
        #expect(try root.required("e").kind == .number)
    }

    @Test(
        "strings are unescaped to UTF-8",
        arguments: [
            (#""plain""#, "plain"), (#""""#, ""), (#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{C}\n\r\t"),
            (#""\u0041\u00e9\u20AC\ud83d\ude00""#, "Aé€😀"), (#""é😀""#, "é😀"), (#""\u0000""#, "\0"),
            (#""e\u0301""#, "e\u{301}"), (#""\uDBFF\uDFFF""#, "\u{10FFFF}"),
        ]
    )
    func strings(json: String, text: String) throws {
        #expect(try Self.root(json).bytes() == Array(text.utf8))
    }

    @Test("members whose names are canonically equivalent are different members")
    func canonicalEquivalents() throws {
        let root = try Self.root("{\"\u{E9}\":1,\"e\u{301}\":2,\"\\u212b\":3,\"\u{C5}\":4}")
        #expect(try root.member("\u{E9}")?.number() == 1)
        #expect(try root.member("e\u{301}")?.number() == 2)
        #expect(try root.member("\u{212B}")?.number() == 3)
    }

    @Test(
        "what is no JSON is refused at its place",
        arguments: [
            ("", 0), (" ", 1), ("{", 1), ("[1,", 3), ("[1,]", 3), ("{\"a\"}", 4), ("{\"a\":}", 5), ("{a:1}", 1),
            ("[1 2]", 3), ("{\"a\":1 \"b\":2}", 7), ("[1]]", 3), ("nul", 3), ("nulL", 3), ("True", 0), ("01", 1),
            ("-", 1), ("1.", 2), ("1e", 2), ("+1", 0), (".5", 0), ("\"abc", 4), ("\"a\nb\"", 2), ("\"\\x\"", 2),
            ("\"\\u12g4\"", 5), ("\"\\ud800\"", 7), ("\"\\udc00\"", 7), ("\"\\ud800\\u0041\"", 13), ("'a'", 0),
            ("[\"a\" : 1]", 5), ("{\"a\",1}", 4), ("//x\n1", 0), ("NaN", 0),
        ]
    )
    func broken(json: String, offset: Int) {
        let error = Self.refusal(Array(json.utf8))
        #expect(error?.code == .damaged)
        #expect(error?.offset == offset, "\(error?.description ?? "")")
    }

    @Test(
        "bytes that are no UTF-8 are refused",
        arguments: [[0xFF], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xE2, 0x82]]
    )
    func invalidText(bytes: [UInt8]) {
        let error = Self.refusal([0x22] + bytes + [0x22])
        #expect(error?.code == .damaged)
        #expect(error?.offset == 1)
    }

    @Test("deep nesting is refused without running out of stack", arguments: ["[", "{\"a\":"])
    func deepNesting(level: String) {
        let error = Self.refusal(Array(String(repeating: level, count: 100_000).utf8))
        #expect(error?.code == .damaged)
        #expect(error?.message.contains("nested") == true)
    }

    @Test("a member that is there twice is refused when it is asked for")
    func duplicates() throws {
        let root = try Self.root(#"{"a":1,"b":2,"a":3}"#)
        #expect(try root.required("b").number() == 2)
        let error = #expect(throws: TokenizerError.self) { try root.required("a") }
        #expect(error?.field == "a")
    }

    @Test(
        "numbers that are no ids are refused",
        arguments: ["-1", "1.0", "1e3", "2147483648", "99999999999999999999", "\"1\""]
    )
    func numbers(json: String) throws {
        let value = try Self.root(json)
        #expect(throws: TokenizerError.self) { try value.number() }
        #expect(try Self.root("2147483647").number() == .max)
    }

    @Test("a text cut anywhere is refused")
    func everyTruncation() {
        let text = Array(#"{"a":[1,"x\u0041",null,true,{"b":-1.5e3}]}"#.utf8)
        for count in text.indices { #expect(Self.refusal(Array(text[..<count]))?.code == .damaged) }
    }
}
