/// Where a code lies behind the first of its part, by Formats/kivi.md, "Lines".
public struct CodePlace {
    public private(set) var byte: Int
    public let shift: Int

    private init(unit: Int, byteInLine: Int, bits: Int) {
        let unitsPerLine = 8 / bits
        byte = unit / unitsPerLine * 64 + byteInLine
        shift = unit % unitsPerLine * bits
    }

    /// A token's key of a run's channel `index`; the run has `count` channels.
    public static func key(token: Int, index: Int, count: Int, bits: Int) -> CodePlace {
        let unit = index / 4 * 2 + token % 32 / 16
        var place = CodePlace(unit: unit, byteInLine: token % 16 * 4 + index % 4, bits: bits)
        place.byte += token / 32 * keyBytes(count: count, bits: bits)
        return place
    }

    /// A token's value of a channel.
    public static func value(token: Int, channel: Int, headDimension: Int, bits: Int) -> CodePlace {
        let unit = token / 4 * ((headDimension + 15) / 16) + channel / 16
        return CodePlace(unit: unit, byteInLine: channel % 16 * 4 + token % 4, bits: bits)
    }

    /// Bytes of the codes of 32 tokens' keys.
    public static func keyBytes(count: Int, bits: Int) -> Int { lineBytes(units: (count + 3) / 4 * 2, bits: bits) }

    /// Bytes of the codes of so many tokens' values.
    public static func valueBytes(tokens: Int, headDimension: Int, bits: Int) -> Int {
        lineBytes(units: tokens / 4 * ((headDimension + 15) / 16), bits: bits)
    }

    private static func lineBytes(units: Int, bits: Int) -> Int {
        let unitsPerLine = 8 / bits
        return (units + unitsPerLine - 1) / unitsPerLine * 64
    }
}
