/// Checks a text from front to back, once, without recursion.
struct JSONValidator {
    struct Fault: Error {
        let offset: Int
        let message: String
    }

    private let bytes: JSONBytes
    private var index = 0
    /// Where the arrays and objects begin that the current place is in.
    private var open: [Int] = []
    /// For each of them, lowest bit first, whether it is an object.
    private var objects: UInt64 = 0
    private var found: [JSONDocument.Extent] = []

    init(_ bytes: JSONBytes) { self.bytes = bytes }

    /// The long arrays and objects, in the order in which they begin.
    mutating func extents() throws(Fault) -> [JSONDocument.Extent] {
        try validate()
        return found.sorted { $0.start < $1.start }
    }

    private func fault(_ message: String) -> Fault {
        index < bytes.count
            ? Fault(offset: index, message: "\(message): the file is damaged or not JSON")
            : Fault(offset: bytes.count, message: "the JSON ends too early: the file is cut off")
    }

    private var next: UInt8 { bytes[index] }

    private var isInObject: Bool { objects & 1 << UInt64(open.count - 1) != 0 }

    private mutating func skipSpaces() {
        while index < bytes.count, JSONBytes.isSpace(bytes[index]) { index += 1 }
    }

    private mutating func validate() throws(Fault) {
        skipSpaces()
        while true {
            // Here a value is due.
            switch next {
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                try openContainer()
                if next != close {
                    if isInObject { try skipName() }
                    continue
                }
                closeContainer()
            case UInt8(ascii: "\""): try skipString()
            case UInt8(ascii: "n"): try skipWord("null")
            case UInt8(ascii: "t"): try skipWord("true")
            case UInt8(ascii: "f"): try skipWord("false")
            case UInt8(ascii: "N"): try skipWord("NaN")
            case UInt8(ascii: "I"): try skipWord("Infinity")
            default: try skipNumber()
            }
            // And here one has ended.
            skipSpaces()
            while !open.isEmpty, next == close {
                closeContainer()
                skipSpaces()
            }
            guard !open.isEmpty else { break }
            guard next == UInt8(ascii: ",") else { throw fault("a comma or the end of a list is missing") }
            index += 1
            skipSpaces()
            if isInObject { try skipName() }
        }
        guard index == bytes.count else { throw fault("something follows the end of the JSON value") }
    }

    /// What ends the current array or object.
    private var close: UInt8 { isInObject ? UInt8(ascii: "}") : UInt8(ascii: "]") }

    private mutating func openContainer() throws(Fault) {
        guard open.count < JSONDocument.maximumDepth else {
            throw fault("the JSON is nested more than \(JSONDocument.maximumDepth) deep")
        }
        let bit: UInt64 = 1 << UInt64(open.count)
        if next == UInt8(ascii: "{") { objects |= bit } else { objects &= ~bit }
        open.append(index)
        index += 1
        skipSpaces()
    }

    private mutating func closeContainer() {
        index += 1
        guard let start = open.popLast(), index - start >= JSONDocument.listedBytes else { return }
        found.append(.init(start: UInt32(start), end: UInt32(index)))
    }

    private mutating func skipName() throws(Fault) {
        guard next == UInt8(ascii: "\"") else { throw fault("a member's name must be a string") }
        try skipString()
        skipSpaces()
        guard next == UInt8(ascii: ":") else { throw fault("a colon must follow a member's name") }
        index += 1
        skipSpaces()
    }

    private mutating func skipString() throws(Fault) {
        index += 1
        while index < bytes.count {
            switch bytes[index] {
            case UInt8(ascii: "\""):
                index += 1
                return
            case UInt8(ascii: "\\"): try skipEscape()
            case 0..<0x20: throw fault("a control character in a string must be escaped")
            default: index += 1
            }
        }
        throw fault("a string doesn't end")
    }

    private mutating func skipEscape() throws(Fault) {
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

    private mutating func skipHexadecimal() throws(Fault) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard let digit = JSONBytes.hexadecimalDigit(next) else { throw fault("four hexadecimal digits are due") }
            value = value << 4 | UInt32(digit)
            index += 1
        }
        return value
    }

    private mutating func skipWord(_ word: StaticString) throws(Fault) {
        for byte in "\(word)".utf8 {
            guard next == byte else { throw fault("a value that JSON doesn't have") }
            index += 1
        }
    }

    private mutating func skipNumber() throws(Fault) {
        if next == UInt8(ascii: "-") { index += 1 }
        switch next {
        case UInt8(ascii: "0"): index += 1
        case UInt8(ascii: "I"): return try skipWord("Infinity")
        default: try skipDigits()
        }
        if next == UInt8(ascii: ".") {
            index += 1
            try skipDigits()
        }
        if next == UInt8(ascii: "e") || next == UInt8(ascii: "E") {
            index += 1
            if next == UInt8(ascii: "+") || next == UInt8(ascii: "-") { index += 1 }
            try skipDigits()
        }
    }

    private mutating func skipDigits() throws(Fault) {
        guard JSONBytes.isDigit(next) else { throw fault("a value that JSON doesn't have") }
        while JSONBytes.isDigit(next) { index += 1 }
    }
}
