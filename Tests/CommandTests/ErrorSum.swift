/// Squared differences over squared originals, added up in float64.
struct ErrorSum {
    private var difference = 0.0
    private var original = 0.0

    init() {}

    init(_ original: [Double], _ other: [Double]) {
        precondition(original.count == other.count, "numbers of something else")
        for (x, y) in zip(original, other) {
            difference += (x - y) * (x - y)
            self.original += x * x
        }
    }

    mutating func add(_ other: ErrorSum) {
        difference += other.difference
        original += other.original
    }

    /// The Frobenius norm of the difference over that of the original.
    var relative: Double { difference == 0 ? 0 : (difference / original).squareRoot() }
}
