/// One group as Formats/kivi.md, "Quantizing a group", says it.
public struct ReferenceGroup {
    public let scale: Float
    public let minimum: Float
    private let highestCode: Float

    public init(_ numbers: some Collection<Float>, bits: Int) {
        // Adding zero takes negative zero as zero.
        self.init(from: (numbers.min() ?? 0) + 0, to: (numbers.max() ?? 0) + 0, bits: bits)
    }

    private init(from lowest: Float, to highest: Float, bits: Int) {
        highestCode = Float(1 << bits - 1)
        scale = Float(Float16((highest - lowest) / highestCode))
        minimum = Float(Float16(lowest))
    }

    /// The group of least squared error among those of "Fitted ranges".
    public init(fitting numbers: some Collection<Float>, bits: Int) {
        let (lowest, highest) = ((numbers.min() ?? 0) + 0, (numbers.max() ?? 0) + 0)
        let (middle, half) = ((lowest + highest) / 2, (highest - lowest) / 2)
        let factors: [Float] = [2: [0.9, 0.8, 0.7, 0.6], 4: [0.96, 0.92, 0.88, 0.84]][bits] ?? []
        let groups =
            [Self(from: lowest, to: highest, bits: bits)]
            + factors.map { factor in
                let reach = factor * half
                return Self(from: middle - reach, to: middle + reach, bits: bits)
            }
        let errors = groups.map { $0.squaredError(of: numbers) }
        // The first of the least.
        self = groups[errors.indices.min { errors[$0] < errors[$1] } ?? 0]
    }

    /// The error of numbers, in the order of additions that the format has for fitted ranges.
    public func squaredError(of numbers: some Collection<Float>) -> Float {
        var sums = [Float](repeating: 0, count: 16)
        for (index, number) in numbers.enumerated() {
            let product = Float(code(number)) * scale
            let error = number - (product + minimum)
            sums[index % 16] += error * error
        }
        for half in [8, 4, 2, 1] {
            for index in 0..<half { sums[index] += sums[index + half] }
        }
        return sums[0]
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
