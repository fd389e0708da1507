/// Bits that a number may take, scales included, in thousandths.
public struct BitBudget: Sendable, Hashable, Comparable {
    /// Budgets that a stage can be asked for.
    public static let range = BitBudget(millibits: 500)...BitBudget(millibits: 8500)
    private static let places = 3

    public let millibits: Int

    public init(millibits: Int) {
        self.millibits = millibits
    }

    /// Reads a parameter.
    ///
    /// - Throws: `RecipeError` that says what a budget may be.
    public init(
        _ name: String,
        _ text: String,
        of stage: String,
        in range: ClosedRange<BitBudget> = range,
        example: String
    ) throws(RecipeError) {
        guard let number = FixedPointNumber(text, places: Self.places),
            range.contains(BitBudget(millibits: number.units))
        else {
            throw RecipeError(
                "\(stage): \(name)=\(text) must be a decimal from \(range.lowerBound.text) to "
                    + "\(range.upperBound.text) with at most three digits after the point",
                suggestion: "\(name)=\(example)"
            )
        }
        millibits = number.units
    }

    /// The smallest budget by which so many numbers may take so many bytes.
    package init(bytes: Int, numbers: Int) {
        millibits = (bytes * 8 * 1000 + numbers - 1) / numbers
    }

    public var bits: Double { Double(millibits) / 1000 }

    /// The most bytes that so many numbers may take.
    package func byteCount(numbers: Int) -> Int { numbers * millibits / (1000 * 8) }

    /// The budget in canonical text.
    public var text: String { FixedPointNumber(units: millibits, places: Self.places).description }

    public static func < (left: BitBudget, right: BitBudget) -> Bool { left.millibits < right.millibits }
}
