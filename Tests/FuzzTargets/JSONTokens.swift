import ThinkCompress

/// JSON as a list of tokens, right or wrong, to be mutated by whole tokens.
struct JSONTokens {
    private let bytes: [UInt8]
    private let tokens: [Range<Int>]

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        var tokens: [Range<Int>] = []
        var place = 0
        while place < bytes.count {
            let start = place
            let byte = bytes[place]
            place += 1
            if byte == UInt8(ascii: "\"") {
                while place < bytes.count, bytes[place] != byte {
                    place += bytes[place] == UInt8(ascii: "\\") ? 2 : 1
                }
                place = min(place + 1, bytes.count)
            } else if Self.isOfWord(byte) {
                while place < bytes.count, Self.isOfWord(bytes[place]) { place += 1 }
            }
            if byte > UInt8(ascii: " ") { tokens.append(start..<place) }
        }
        self.tokens = tokens
    }

    /// Whether a byte is of a number or of `true`, `false`, `null`.
    private static func isOfWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "."):
            true
        default: false
        }
    }

    private static let values = [
        "0", "1", "-1", "2", "-0", "0.5", "1e-9", "1e308", "1e999", "-1e999", "1e-999", "127", "128", "255", "256",
        "65535", "65536", "2147483647", "2147483648", "4294967295", "4294967296", "9223372036854775807",
        "9223372036854775808", "-9223372036854775808", "18446744073709551615", "18446744073709551616",
        "123456789012345678901234567890", "1.0", "10000000000000000000000e-20", "NaN", "Infinity", "-Infinity", "null",
        "true", "false",
        "[]", "{}", "\"\"", "[[]]", "[0]", "[null]", "{\"\":0}", "\"\\u0000\"", "\"\\ud800\"", "\"\\ud83d\\ude00\"",
        "\"e\\u0301\"", "\"\u{FEFF}\"", "\"<0x00>\"", "\"(?:a|b)*+\"", "\"(\"", "\"\\\\p{L}{2,}\"", "\"(a*)*b\"", "01",
        "1.", ".5", "+1",
    ].map { Array($0.utf8) }

    func mutated(splicing other: [UInt8], using generator: inout SplitMix64) -> [UInt8] {
        guard let place = tokens.indices.randomElement(using: &generator) else { return other }
        let token = tokens[place]
        let second = tokens[Int.random(in: tokens.indices, using: &generator)]
        /// From this token to another not far behind it: members, elements, and what is neither.
        let piece =
            token
            .lowerBound..<tokens[min(place + Int.random(in: 0..<8, using: &generator), tokens.count - 1)].upperBound
        let value = Self.values.randomElement(using: &generator) ?? []
        switch Int.random(in: 0..<10, using: &generator) {
        case 0, 1, 2: return replacing(nextValue(from: place), with: value)
        case 3: return replacing(token, with: value)
        case 4: return replacing(token, with: Array(bytes[second]))
        case 5: return replacing(piece, with: [])
        case 6: return Array(bytes[..<piece.upperBound] + bytes[piece.lowerBound...])
        case 7: return repeatingMember(at: place)
        case 8:
            let deep = [UInt8](repeating: UInt8(ascii: "["), count: 1 << Int.random(in: 0..<13, using: &generator))
            let ends = [UInt8](repeating: UInt8(ascii: "]"), count: deep.count)
            return replacing(token, with: Bool.random(using: &generator) ? deep + bytes[token] + ends : deep)
        default: return Mutator.mutateBytes(bytes, in: token, splicing: other, using: &generator)
        }
    }

    private func replacing(_ range: Range<Int>, with other: [UInt8]) -> [UInt8] {
        Array(bytes[..<range.lowerBound] + other + bytes[range.upperBound...])
    }

    /// The first scalar value, rather than name or punctuation, from a token on.
    private func nextValue(from place: Int) -> Range<Int> {
        for index in place..<tokens.count
        where tokens[index].count > 1 || Self.isOfWord(bytes[tokens[index].lowerBound]) {
            let isName = index + 1 < tokens.count && bytes[tokens[index + 1].lowerBound] == UInt8(ascii: ":")
            if !isName { return tokens[index] }
        }
        return tokens[place]
    }

    /// The next member `"name": value` twice, as far as its value is one token.
    private func repeatingMember(at place: Int) -> [UInt8] {
        for index in place..<tokens.count where index > 0 && index + 1 < tokens.count {
            guard bytes[tokens[index].lowerBound] == UInt8(ascii: ":") else { continue }
            let member = tokens[index - 1].lowerBound..<tokens[index + 1].upperBound
            return Array(bytes[..<member.upperBound] + [UInt8(ascii: ",")] + bytes[member.lowerBound...])
        }
        return bytes
    }
}
