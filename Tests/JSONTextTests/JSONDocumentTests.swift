import ByteStorage
import JSONText
import TestSupport
import Testing
import ThinkCompress

/// Reading JSON: what RFC 8259 allows, byte for byte, and every way to be broken.
@Suite struct JSONDocumentTests {
    private static func root(_ text: String) throws -> JSONValue { try root(Array(text.utf8)) }
    private static func root(_ bytes: [UInt8]) throws -> JSONValue {
        try JSONDocument(SharedBytes(bytes), remedy: "mend it").root
    }

    private static func refusal(_ bytes: [UInt8]) -> JSONError? {
        #expect(throws: JSONError.self) { try root(bytes) }
    }

    @Test("members come by name, elements in order")
    func structure() throws {
        let root = try Self.root(
            #" { "a" : [ 1 , "x", null,true , false, {}, [] ] ,"b":{"c":{"d":[[7]]}}, "e":-1.5e+3 } "#
        )
        let elements = Array(try root.required("a").elements())
        #expect(elements.map(\.kind) == [.number, .string, .null, .bool, .bool, .object, .array])
        #expect(elements.map(\.path) == (0..<7).map { "a[\($0)]" })
        #expect(try elements[0].number() == 1)
        #expect(try elements[3].bool())
        #expect(
            try Array(Array(root.required("b").required("c").required("d").elements())[0].elements())[0].number() == 7
        )
        #expect(try root.member("z") == nil)
        #expect(elements[2].kind == .null)
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
            ("[\"a\" : 1]", 5), ("{\"a\",1}", 4), ("//x\n1", 0), ("nan", 1), ("Nan", 2), ("-Infinit", 8), ("-NaN", 1),
            ("+Infinity", 0), ("\u{FEFF}1", 0),
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

    /// An object of members `m0`, `m1`, ... of which the last is called otherwise.
    private static func object(members: Int, last: String) -> String {
        let names = (0..<members - 1).map { "m\($0)" } + [last]
        return "{" + names.enumerated().map { "\"\($1)\":\($0)" }.joined(separator: ",") + "}"
    }

    @Test("a name that is there twice is refused where it is, however it is written", arguments: [2, 8, 9, 100, 5000])
    func duplicates(members: Int) throws {
        let sound = Self.object(members: members, last: "x")
        let object = try Self.root(sound).object()
        #expect(object.count == members)
        #expect(try object.required("x").int() == members - 1)
        #expect(try object.required("m0").int() == 0)
        #expect(object["m\(members - 1)"] == nil)
        for last in ["m0", "m\((members - 2))", #"\u006d0"#] {
            let text = Self.object(members: members, last: last)
            let error = #expect(throws: JSONError.self) { try Self.root(text).object() }
            #expect(error?.field == (last == #"\u006d0"# ? "m0" : last))
            #expect(error?.message == "is there twice; mend it")
            #expect(error?.offset == text.utf8.count - 1 - "\(members - 1)".utf8.count)
        }
    }

    @Test("names within an object that isn't read may be there twice")
    func duplicatesElsewhere() throws {
        #expect(try Self.root(#"{"a":{"b":1,"b":2},"c":3}"#).required("c").int() == 3)
    }

    @Test("what is behind long arrays, objects and strings is found", arguments: [10, 4090, 4095, 4096, 5000, 100_000])
    func longValues(length: Int) throws {
        let zeros = String(repeating: "0,", count: length / 2) + "0"
        let text = #"{"a":[[\#(zeros)],[[\#(zeros)],{"x":"\#(zeros)]}","y":[\#(zeros)]}]],"b":{"c":7}}"#
        let root = try Self.root(text)
        #expect(try root.required("b").required("c").int() == 7)
        #expect(root.path == nil)
        let inner = Array(try Array(try root.required("a").elements())[1].elements())[1]
        #expect(inner.path == "a[1][1]")
        #expect(try inner.required("y").path == "a[1][1].y")
        #expect(try inner.required("x").text().hasSuffix("0]}"))
    }

    @Test("NaN and infinities are read over, and refused where a number is needed")
    func notFinite() throws {
        let root = try Self.root(#"{"a":NaN,"b":[Infinity,-Infinity],"c":1}"#)
        #expect(try root.required("c").double() == 1)
        let error = #expect(throws: JSONError.self) { try root.required("a").double() }
        #expect(error?.message == "is NaN, must be a finite number; mend it")
        for value in try root.required("b").elements() {
            #expect(throws: JSONError.self) { try value.double() }
            #expect(throws: JSONError.self) { try value.int() }
        }
    }

    @Test("whole numbers are exact, others are rounded once")
    func wholeNumbers() throws {
        #expect(try Self.root("18446744073709551615").unsigned() == .max)
        #expect(throws: JSONError.self) { try Self.root("18446744073709551616").unsigned() }
        #expect(try Self.root("-9223372036854775808").int() == .min)
        #expect(try Self.root("9223372036854775807").int() == .max)
        #expect(throws: JSONError.self) { try Self.root("9223372036854775808").int() }
        #expect(throws: JSONError.self) { try Self.root("1.0").int() }
        #expect(throws: JSONError.self) { try Self.root("-1").unsigned() }
        #expect(try Self.root("1e-05").double() == 1e-5)
        #expect(try Self.root("-0.1").double() == -0.1)
        #expect(throws: JSONError.self) { try Self.root("1e999").double() }
        #expect(throws: JSONError.self) { try Self.root("1." + String(repeating: "0", count: 1000)).double() }
    }

    @Test("errors show the beginning of a long string alone")
    func longNames() throws {
        let name = String(repeating: "\u{E9}", count: 100_000)
        let error = #expect(throws: JSONError.self) { try Self.root(#"{"\#(name)":1}"#).required(name).text() }
        #expect(error?.field == String(repeating: "\u{E9}", count: 40) + "...")
    }

    @Test("changed bytes are refused or read, without a trap", arguments: 1...4 as ClosedRange<UInt64>)
    func changedBytes(seed: UInt64) {
        var generator = SplitMix64(seed: seed)
        let sound = Array(#"{"a":[1,"x\u0041\ud83d\ude00é",null,true,{"b":-1.5e3,"c":NaN}],"a\n":{"b":[[],{}]}}"#.utf8)
        func visit(_ value: JSONValue) {
            _ = value.path
            _ = try? value.text()
            _ = try? value.int()
            _ = try? value.double()
            if let object = try? value.object() {
                for member in object.members { visit(member.value) }
            }
            if let elements = try? value.elements() {
                for element in elements { visit(element) }
            }
        }
        for _ in 0..<2000 {
            var text = sound
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                text[Int.random(in: 0..<text.count, using: &generator)] =
                    Bool.random(using: &generator)
                    ? UInt8.random(in: 0...255, using: &generator)
                    : Array(#"0123456789-{}[]",:\u"#.utf8).randomElement(using: &generator) ?? 0
            }
            if let root = try? Self.root(text) { visit(root) }
        }
    }

    @Test(
        "numbers that are no ids are refused",
        arguments: ["-1", "1.0", "1e3", "2147483648", "99999999999999999999", "\"1\""]
    )
    func numbers(json: String) throws {
        let value = try Self.root(json)
        #expect(throws: JSONError.self) { try value.number() }
        #expect(try Self.root("2147483647").number() == .max)
    }

    @Test("a text cut anywhere is refused")
    func everyTruncation() {
        let text = Array(#"{"a":[1,"x\u0041",null,true,{"b":-1.5e3}]}"#.utf8)
        for count in text.indices { #expect(Self.refusal(Array(text[..<count]))?.code == .damaged) }
    }
}
