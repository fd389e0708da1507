/// What can be told from the last bytes of a text in UTF-8 that goes on.
enum UTF8Tail {
    /// How many bytes at the end begin a character that more bytes could complete: 0 to 3.
    static func incompleteCount(of bytes: [UInt8]) -> Int {
        for count in 1...3 where count <= bytes.count {
            let first = bytes[bytes.count - count]
            if first & 0xC0 == 0x80 { continue }
            let needed =
                switch first {
                case 0xC2...0xDF: 2
                case 0xE0...0xEF: 3
                case 0xF0...0xF4: 4
                default: 1
                }
            guard needed > count else { return 0 }
            return count == 1 || isSecond(bytes[bytes.count - count + 1], after: first) ? count : 0
        }
        return 0
    }

    /// Whether a continuation byte may follow this first byte: some would be too long, surrogates or beyond U+10FFFF.
    private static func isSecond(_ byte: UInt8, after first: UInt8) -> Bool {
        switch first {
        case 0xE0: byte >= 0xA0
        case 0xED: byte < 0xA0
        case 0xF0: byte >= 0x90
        case 0xF4: byte < 0x90
        default: true
        }
    }
}
