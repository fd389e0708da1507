import Foundation
package import ThinkCompress

/// One group as Formats/kivi.md, "Quantizing a group", says it.
public struct ReferenceGroup {
    public let scale: Float
    public let minimum: Float
    private let highestCode: Float

    /// A group with scales in float16, from its least to its greatest number.
    public init(_ numbers: some Collection<Float>, bits: Int) {
        let (lowest, highest) = Self.range(of: numbers)
        self.init(from: lowest, to: highest, bits: bits, scales: .float16)
    }

    /// A group by a coding.
    package init(_ numbers: some Collection<Float>, coding: Coding) {
        if coding.ranges == .fitted {
            self.init(fitting: numbers, bits: coding.width, scales: coding.scales)
        } else {
            let (lowest, highest) = Self.range(of: numbers)
            self.init(from: lowest, to: highest, bits: coding.width, scales: coding.scales)
        }
    }

    private init(from lowest: Float, to highest: Float, bits: Int, scales: Coding.Scales) {
        highestCode = Float(1 << bits - 1)
        if scales == .compact {
            (scale, minimum) = CompactScale.stored(from: lowest, to: highest, highestCode: highestCode)
        } else {
            scale = Float(Float16((highest - lowest) / highestCode))
            minimum = Float(Float16(lowest))
        }
    }

    private static func range(of numbers: some Collection<Float>) -> (Float, Float) {
        // Adding zero takes negative zero as zero.
        ((numbers.min() ?? 0) + 0, (numbers.max() ?? 0) + 0)
    }

    // MARK: - Fitted ranges

    private static let factors: [Int: [Float]] = [
        1: [0.56, 0.48, 0.40, 0.33], 2: [1, 0.9, 0.8, 0.7, 0.6], 3: [1, 0.94, 0.88, 0.82, 0.76],
        4: [1, 0.96, 0.92, 0.88, 0.84], 5: [1, 0.97, 0.94], 8: [1],
    ]

    /// The group of least squared error among those of "Fitted ranges".
    package init(fitting numbers: some Collection<Float>, bits: Int, scales: Coding.Scales = .float16) {
        let (lowest, highest) = Self.range(of: numbers)
        let (middle, half) = ((lowest + highest) / 2, (highest - lowest) / 2)
        let groups = (Self.factors[bits] ?? []).map { factor in
            let reach = factor * half
            return factor == 1
                ? Self(from: lowest, to: highest, bits: bits, scales: scales)
                : Self(from: middle - reach, to: middle + reach, bits: bits, scales: scales)
        }
        let unit = 2047 / half
        var best: (group: Self, error: Int)?
        for group in groups where half > 0 && unit.isFinite {
            guard let error = group.fittingError(of: numbers, middle: middle, unit: unit, bits: bits) else { continue }
            if error < best?.error ?? .max { best = (group, error) }
        }
        self = best?.group ?? groups[0]
    }

    /// The squared error in integers, of numbers in units of a 2047th of half the range; nil if the group is passed over.
    private func fittingError(of numbers: some Collection<Float>, middle: Float, unit: Float, bits: Int) -> Int? {
        let center = minimum + highestCode / 2 * scale
        let offset = ((center - middle) * unit).rounded(.toNearestOrEven)
        let halfStep = (scale * unit / 2).rounded(.toNearestOrEven)
        guard offset.magnitude <= 1023, halfStep * Float(1 << bits) <= 4095 else { return nil }
        return numbers.reduce(0) { sum, number in
            let place = min(max(((number - middle) * unit).rounded(.toNearestOrEven), -2047), 2047)
            var error = abs(Int(place) - Int(offset))
            for power in (0..<bits).reversed() { error = abs(error - Int(halfStep) << power) }
            return sum + error * error
        }
    }

    /// The error of numbers as they are restored.
    public func squaredError(of numbers: some Collection<Float>) -> Double {
        numbers.reduce(0) { sum, number in
            let error = Double(number - restored(number))
            return sum + error * error
        }
    }

    // MARK: - Codes

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

    // MARK: - Bounds

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

/// Scales and middles of a byte each: Formats/kivi.md, "Compact scales".
private enum CompactScale {
    static func scale(_ code: Int) -> Float {
        code == 0 ? 0 : Float(exp2(Double(code % 8) / 8)) * Float(exp2(Double(code / 8 - 16)))
    }

    static func stored(from lowest: Float, to highest: Float, highestCode: Float) -> (scale: Float, minimum: Float) {
        let middle = (lowest + highest) / 2
        let wanted = max((highest - lowest) / highestCode, middle.magnitude * Float(16.0 / 127))
        var code = 0
        if wanted.isNormal {
            let thresholds = (1...8).map { Float(exp2((Double($0) - 0.5) / 8)) }
            let above = thresholds.count { wanted.significand >= $0 }
            code = min(max(8 * (Int(wanted.exponent) + 16) + above, 0), 255)
        }
        if middle.magnitude * 16 > 127 * scale(code), (1..<255).contains(code) { code += 1 }
        let scale = scale(code)
        let inverse = scale > 0 ? 1 / scale : 0
        let offset = min(max((middle * inverse * 16).rounded(.toNearestOrEven), -127), 127)
        return (scale, (offset / 16 - highestCode / 2) * scale)
    }
}

/// Rows as they are before they are coded with compact scales: Formats/kivi.md, "Compact scales" and "Rotated values".
package enum ReferenceCentering {
    /// Numbers less their channels' means, rotated if they are to be.
    package static func centered(_ row: [Float], means: [Float], isRotated: Bool) -> [Float] {
        let differences = zip(row, means).map { $0 - $1 }
        return (isRotated ? rotated(differences) : differences).map(clamped)
    }

    /// The opposite.
    package static func restored(_ row: [Float], means: [Float], isRotated: Bool) -> [Float] {
        zip(isRotated ? rotated(row) : row, means).map { clamped($0 + $1) }
    }

    private static func clamped(_ number: Float) -> Float { min(max(number, -65504), 65504) }

    private static func rotated(_ row: [Float]) -> [Float] {
        let size = row.count & -row.count
        var result = row
        for start in stride(from: 0, to: row.count, by: size) {
            var distance = 1
            while distance < size {
                for index in 0..<size where index & distance == 0 {
                    let (first, second) = (result[start + index], result[start + index + distance])
                    result[start + index] = first + second
                    result[start + index + distance] = first - second
                }
                distance *= 2
            }
        }
        let factor = Float(1 / Double(size).squareRoot())
        return result.map { $0 * factor }
    }
}
