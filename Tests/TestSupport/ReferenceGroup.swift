/// One group as Formats/kivi.md, "Quantizing a group", says it.
public struct ReferenceGroup {
    public let scale: Float
    public let minimum: Float
    private let highestCode: Float

    public init(_ numbers: some Collection<Float>, bits: Int) {
        highestCode = Float(1 << bits - 1)
        // Adding zero takes negative zero as zero.
        let lowest = (numbers.min() ?? 0) + 0
        let highest = (numbers.max() ?? 0) + 0
        scale = Float(Float16((highest - lowest) / highestCode))
        minimum = Float(Float16(lowest))
    }

    public func code(_ number: Float) -> Int {
        let inverse = scale == 0 ? 0 : 1 / scale
        let position = (number - minimum) * inverse
        return Int(min(max(position.rounded(.toNearestOrEven), 0), highestCode))
    }

    public func isPacked(_ number: Float, as packed: PackedBlock.Number) -> Bool {
        packed.code == code(number) && packed.scale == scale && packed.minimum == minimum
    }

    public func restored(_ number: Float) -> Float {
        let product = Float(code(number)) * scale
        return min(product + minimum, 65504)
    }

    /// How far a number may be from what is restored: half a step, and what rounding scale and minimum to float16
    /// moves the range's ends by.
    public var errorBound: Float {
        scale / 2 + Self.endShift(minimum: minimum, range: highestCode * scale, codes: highestCode)
    }

    /// Relative rounding of a normal float16.
    private static let halfPrecision: Float = 0x1p-11
    /// Rounding of a subnormal float16.
    private static let subnormalStep: Float = 0x1p-25
    /// Float32 roundings on the way: position, product, sum and the bound itself.
    private static let singlePrecision: Float = 8 * 0x1p-24

    private static func endShift(minimum: Float, range: Float, codes: Float) -> Float {
        let size = abs(minimum) + range
        return size * (halfPrecision + singlePrecision) + (codes + 1) * subnormalStep
    }
}
