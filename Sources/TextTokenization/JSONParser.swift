/// Reads JSON text once from front to back and lists its values.
struct JSONParser {
    /// How deeply arrays and objects may be nested; tokenizers use 8 levels.
    static let maximumDepth = 64

    private let bytes: [UInt8]
    private var index = 0
    private var nodes: [JSONDocument.Node] = []

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        nodes.reserveCapacity(bytes.count / 12)
    }

    /// The nodes of the one value that the text must be.
    mutating func parse() throws(TokenizerError) -> [JSONDocument.Node] {
        skipSpaces()
        try parseValue(depth: 0)
        skipSpaces()
        guard index == bytes.count else { throw fault("something follows the end of the JSON value") }
        return nodes
    }

    static func hexadecimalDigit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }

    private func fault(_ message: String) -> TokenizerError {
        guard index < bytes.count else {
            return TokenizerError(.damaged, at: bytes.count, "the JSON ends too early; the file is cut off")
        }
        return TokenizerError(.damaged, at: index, "\(message); the file is damaged or not JSON")
    }

    private var next: UInt8? { index < bytes.count ? bytes[index] : nil }

    private mutating func skipSpaces() {
        while index < bytes.count {
            switch bytes[index] {
            case 0x20, 0x09, 0x0A, 0x0D: index += 1
            default: return
            }
        }
    }

    private mutating func parseValue(depth: Int) throws(TokenizerError) {
        switch next {
        case UInt8(ascii: "{"): try parseContainer(.object, depth: depth)
        case UInt8(ascii: "["): try parseContainer(.array, depth: depth)
        case UInt8(ascii: "\""): try parseString()
        case UInt8(ascii: "n"): try parseWord("null", .null)
        case UInt8(ascii: "t"): try parseWord("true", .true)
        case UInt8(ascii: "f"): try parseWord("false", .false)
        default: try parseNumber()
        }
    }

    private mutating func parseContainer(_ kind: JSONDocument.Kind, depth: Int) throws(TokenizerError) {
        guard depth < Self.maximumDepth else {
            throw TokenizerError(
                .damaged,
                at: index,
                "the JSON is nested more than \(Self.maximumDepth) deep; pass a tokenizer.json"
            )
        }
        let node = nodes.count
        let close = kind == .object ? UInt8(ascii: "}") : UInt8(ascii: "]")
        nodes.append(.init(kind: kind, start: UInt32(index), end: 0))
        index += 1
        skipSpaces()
        if next == close {
            index += 1
        } else {
            while true {
                if kind == .object {
                    guard next == UInt8(ascii: "\"") else { throw fault("a member's name must be a string") }
                    try parseString()
                    skipSpaces()
                    guard next == UInt8(ascii: ":") else { throw fault("a colon must follow a member's name") }
                    index += 1
                    skipSpaces()
                }
                try parseValue(depth: depth + 1)
                skipSpaces()
                if next == close { break }
                guard next == UInt8(ascii: ",") else { throw fault("a comma or the end of a list is missing") }
                index += 1
                skipSpaces()
            }
            index += 1
        }
        nodes[node].end = UInt32(nodes.count)
    }

    private mutating func parseString() throws(TokenizerError) {
        index += 1
        let start = index
        var isEscaped = false
        while let byte = next {
            switch byte {
            case UInt8(ascii: "\""):
                nodes.append(
                    .init(kind: isEscaped ? .escapedString : .string, start: UInt32(start), end: UInt32(index))
                )
                index += 1
                return
            case UInt8(ascii: "\\"):
                isEscaped = true
                try skipEscape()
            case 0..<0x20: throw fault("a control character in a string must be escaped")
            default: index += 1
            }
        }
        throw fault("a string doesn't end")
    }

    private mutating func skipEscape() throws(TokenizerError) {
        index += 1
        switch next {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"), UInt8(ascii: "f"),
            UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"):
            index += 1
        case UInt8(ascii: "u"):
            index += 1
            let first = try skipHexadecimal()
            guard first & 0xF800 == 0xD800 else { return }
            guard first & 0xFC00 == 0xD800, next == UInt8(ascii: "\\") else { throw fault("half of a surrogate pair") }
            index += 1
            guard next == UInt8(ascii: "u") else { throw fault("half of a surrogate pair") }
            index += 1
            guard try skipHexadecimal() & 0xFC00 == 0xDC00 else { throw fault("half of a surrogate pair") }
        default: throw fault("an escape that JSON doesn't have")
        }
    }

    private mutating func skipHexadecimal() throws(TokenizerError) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard let digit = next.flatMap(Self.hexadecimalDigit) else {
                throw fault("four hexadecimal digits are due")
            }
            value = value << 4 | UInt32(digit)
            index += 1
        }
        return value
    }

    private mutating func parseWord(_ word: StaticString, _ kind: JSONDocument.Kind) throws(TokenizerError) {
        let start = index
        for byte in "\(word)".utf8 {
            guard next == byte else { throw fault("a value that JSON doesn't have") }
            index += 1
        }
        nodes.append(.init(kind: kind, start: UInt32(start), end: UInt32(index)))
    }

    private mutating func parseNumber() throws(TokenizerError) {
        let start = index
        if next == UInt8(ascii: "-") { index += 1 }
        if next == UInt8(ascii: "0") { index += 1 } else { try skipDigits() }
        if next == UInt8(ascii: ".") {
            index += 1
            try skipDigits()
        }
        if next == UInt8(ascii: "e") || next == UInt8(ascii: "E") {
            index += 1
            if next == UInt8(ascii: "+") || next == UInt8(ascii: "-") { index += 1 }
            try skipDigits()
        }
        nodes.append(.init(kind: .number, start: UInt32(start), end: UInt32(index)))
    }

    private mutating func skipDigits() throws(TokenizerError) {
        let start = index
        while let byte = next, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { index += 1 }
        guard index > start else { throw fault("a value that JSON doesn't have") }
    }
}
