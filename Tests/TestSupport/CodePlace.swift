/// Where a code lies behind the first of its part, by Formats/kivi.md, "Lines".
public struct CodePlace {
    /// The code's bits in one plane, the lowest first.
    private struct Part {
        var byte: Int
        let shift: Int
        let bits: Int
    }

    private var parts: [Part] = []

    private init(unit: Int, byteInLine: Int, units: Int, bits: Int, start: Int) {
        var plane = start
        for planeBits in Self.planes(bits) {
            let unitsPerLine = 8 / planeBits
            parts.append(
                Part(
                    byte: plane + unit / unitsPerLine * 64 + byteInLine,
                    shift: unit % unitsPerLine * planeBits,
                    bits: planeBits
                )
            )
            plane += Self.lineBytes(units: units, bits: planeBits)
        }
    }

    /// Codes of 3 and 5 bits lie in two planes.
    private static func planes(_ bits: Int) -> [Int] { bits == 3 || bits == 5 ? [bits - 1, 1] : [bits] }

    /// A token's key of a run's channel `index`; the run has `count` channels.
    public static func key(token: Int, index: Int, count: Int, bits: Int) -> CodePlace {
        CodePlace(
            unit: index / 4 * 2 + token % 32 / 16,
            byteInLine: token % 16 * 4 + index % 4,
            units: (count + 3) / 4 * 2,
            bits: bits,
            start: token / 32 * keyBytes(count: count, bits: bits)
        )
    }

    /// A token's value of a channel.
    public static func value(token: Int, channel: Int, headDimension: Int, bits: Int) -> CodePlace {
        let slices = (headDimension + 15) / 16
        return CodePlace(
            unit: token % 32 / 4 * slices + channel / 16,
            byteInLine: channel % 16 * 4 + token % 4,
            units: 8 * slices,
            bits: bits,
            start: token / 32 * valueBytes(tokens: 32, headDimension: headDimension, bits: bits)
        )
    }

    /// Puts a code into bytes that are zero there.
    public func put(_ code: Int, into bytes: inout [UInt8]) {
        var rest = code
        for part in parts {
            bytes[part.byte] |= UInt8(rest & (1 << part.bits - 1)) << part.shift
            rest >>= part.bits
        }
    }

    /// The code that bytes have here.
    public func code(in bytes: some RandomAccessCollection<UInt8>) -> Int {
        parts.reversed().reduce(0) { code, part in
            let byte = bytes[bytes.index(bytes.startIndex, offsetBy: part.byte)]
            return code << part.bits | Int(byte) >> part.shift & (1 << part.bits - 1)
        }
    }

    /// Bytes of the codes of 32 tokens' keys.
    public static func keyBytes(count: Int, bits: Int) -> Int { planeBytes(units: (count + 3) / 4 * 2, bits: bits) }

    /// Bytes of the codes of so many tokens' values.
    public static func valueBytes(tokens: Int, headDimension: Int, bits: Int) -> Int {
        planeBytes(units: tokens / 4 * ((headDimension + 15) / 16), bits: bits)
    }

    private static func planeBytes(units: Int, bits: Int) -> Int {
        planes(bits).reduce(0) { $0 + lineBytes(units: units, bits: $1) }
    }

    private static func lineBytes(units: Int, bits: Int) -> Int {
        let unitsPerLine = 8 / bits
        return (units + unitsPerLine - 1) / unitsPerLine * 64
    }
}
