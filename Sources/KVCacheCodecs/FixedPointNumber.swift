/// A decimal number of a recipe: a whole number of its last place, so that it is the same everywhere.
public struct FixedPointNumber: Sendable, Hashable, CustomStringConvertible {
    /// Digits that may follow the point.
    public let places: Int
    /// The number in units of its last place.
    public let units: Int

    public init(units: Int, places: Int) {
        self.units = units
        self.places = places
    }

    /// Reads digits with, perhaps, a point and up to `places` digits after it; nil if that is not what the text is.
    public init?(_ text: some StringProtocol, places: Int) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), parts.allSatisfy({ !$0.isEmpty }),
            parts.joined().allSatisfy({ ("0"..."9").contains($0) })
        else { return nil }
        guard parts[0] == "0" || parts[0].first != "0" else { return nil }
        let fraction = parts.count == 2 ? String(parts[1]) : ""
        guard fraction.count <= places,
            let units = Int(parts[0] + fraction + String(repeating: "0", count: places - fraction.count))
        else { return nil }
        self.init(units: units, places: places)
    }

    /// Units of the number 1.
    private var one: Int { (0..<places).reduce(1) { power, _ in power * 10 } }

    public var doubleValue: Double { Double(units) / Double(one) }

    /// The number as short as it can be.
    public var description: String {
        let (whole, rest) = units.quotientAndRemainder(dividingBy: one)
        guard rest > 0 else { return "\(whole)" }
        let digits = String(one + rest).dropFirst()
        return "\(whole)." + digits.prefix(through: digits.lastIndex { $0 != "0" } ?? digits.startIndex)
    }
}
