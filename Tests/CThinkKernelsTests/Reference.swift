// The definitions of Formats/kivi.md once more, without the kernels.

/// The value of a float16 without sign.
func valueOfHalf(_ magnitude: UInt16) -> Float {
    let exponent = Int(magnitude >> 10)
    let fraction = Float(magnitude & 0x3FF)
    if exponent == 31 { return fraction == 0 ? .infinity : .nan }
    return exponent == 0
        ? Float(sign: .plus, exponent: -24, significand: fraction)
        : Float(sign: .plus, exponent: exponent - 25, significand: fraction + 1024)
}

/// The nearest value that float16 has; ties to even. Finite values of its range only.
func roundedToHalf(_ value: Float) -> Float {
    let steps = max(value == 0 ? 0 : Int(value.exponent), -14) - 10
    let step = Float(sign: .plus, exponent: steps, significand: 1)
    return (value / step).rounded(.toNearestOrEven) * step
}

/// One quantized group: "Quantizing a group".
struct ReferenceGroup {
    var scale: Float
    var minimum: Float
    var codes: [UInt8]

    init(_ values: [Float], width: UInt32) {
        let highest = Float((1 << width) - 1)
        let least = values.min()! + 0
        let greatest = values.max()! + 0
        scale = roundedToHalf((greatest - least) / highest)
        minimum = roundedToHalf(least)
        let inverse = scale > 0 ? 1 / scale : 0
        let start = minimum
        codes = values.map { UInt8(min(max((($0 - start) * inverse).rounded(.toNearestOrEven), 0), highest)) }
    }

    func restored(_ index: Int) -> Float {
        let product = Float(codes[index]) * scale
        return min(product + minimum, 65_504)
    }
}

/// Where a code lies: "Lines".
struct CodePlace {
    var byte: Int
    var shift: UInt8

    private init(unit: Int, byteInLine: Int, width: UInt32) {
        let unitsPerLine = 8 / Int(width)
        byte = unit / unitsPerLine * 64 + byteInLine
        shift = UInt8(unit % unitsPerLine * Int(width))
    }

    static func key(token: Int, index: Int, count: Int, width: UInt32) -> CodePlace {
        let unitsPerLine = 8 / Int(width)
        let subblockBytes = ((count + 3) / 4 * 2 + unitsPerLine - 1) / unitsPerLine * 64
        let unit = index / 4 * 2 + token % 32 / 16
        var place = CodePlace(unit: unit, byteInLine: token % 16 * 4 + index % 4, width: width)
        place.byte += token / 32 * subblockBytes
        return place
    }

    static func value(token: Int, channel: Int, headDimension: Int, width: UInt32) -> CodePlace {
        let unit = token / 4 * ((headDimension + 15) / 16) + channel / 16
        return CodePlace(unit: unit, byteInLine: channel % 16 * 4 + token % 4, width: width)
    }
}
