/// The characters that stand for bytes in vocabularies of the GPT-2 family.
///
/// Source: `bytes_to_unicode` of <https://github.com/openai/gpt-2/blob/master/src/encoder.py>: printable Latin-1
/// stands for itself, the other bytes take the characters from U+0100 on, in order.
enum ByteLevelAlphabet {
    /// The pattern that GPT-2 splits texts with.
    static let pattern =
        #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#

    private static func isPrintable(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: true
        default: false
        }
    }

    /// The character of each byte, in UTF-8.
    static let characters: [[UInt8]] = {
        var next: UInt32 = 0x100
        return (0...255).map { (byte: UInt8) in
            var value = UInt32(byte)
            if !isPrintable(byte) {
                value = next
                next += 1
            }
            return Array(String(Unicode.Scalar(value) ?? "\u{FFFD}").utf8)
        }
    }()

    /// The byte of each character below U+0144, or -1.
    private static let bytes: [Int16] = {
        var bytes = [Int16](repeating: -1, count: 0x144)
        for (byte, character) in characters.enumerated() {
            bytes[Int(scalar(at: 0, of: character[...]).0.value)] = Int16(byte)
        }
        return bytes
    }()

    /// The bytes that the characters of `token` stand for, or nil if one of them stands for none.
    static func bytes(of token: ArraySlice<UInt8>) -> [UInt8]? {
        var result: [UInt8] = []
        var isComplete = true
        forEachScalar(of: token) { scalar, _ in
            guard scalar.value < bytes.count, bytes[Int(scalar.value)] >= 0 else {
                isComplete = false
                return
            }
            result.append(UInt8(bytes[Int(scalar.value)]))
        }
        return isComplete ? result : nil
    }
}
