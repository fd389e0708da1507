/// The value of a float16 without sign.
func valueOfHalf(_ magnitude: UInt16) -> Float {
    let exponent = Int(magnitude >> 10)
    let fraction = Float(magnitude & 0x3FF)
    if exponent == 31 { return fraction == 0 ? .infinity : .nan }
    return exponent == 0
        ? Float(sign: .plus, exponent: -24, significand: fraction)
        : Float(sign: .plus, exponent: exponent - 25, significand: fraction + 1024)
}
