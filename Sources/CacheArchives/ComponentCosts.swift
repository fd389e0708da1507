internal import CThinkKernels

/// Chooses how a component of a chunk is coded.
struct ComponentCosts {
    /// Symbols of a table: those of both signs and the escape.
    private static let alphabet = Int(TCK_SYMBOLS)
    /// Scales about that of the variance that are tried, below and above.
    private static let tried = -4...3
    /// More than there are numbers of low bits.
    private static let lowBitCounts = 16

    /// Upper ends of the scales' variances: the first that a variance is below is that of its scale.
    private static let limits: [Double] = {
        // 2^(scale / 2 - 10 + 1/4), by square roots alone, which are the same everywhere.
        let root = 2.0.squareRoot()
        let quarter = root.squareRoot()
        return ComponentTable.scales.map { scale in
            let octaves = scale / 2 - 10
            let power = Double(sign: .plus, exponent: octaves, significand: 1)
            return power * quarter * (scale % 2 == 0 ? 1 : root)
        }
    }()

    /// Counts of symbols by shift and number of low bits, as far as they are known.
    private var counts = [UInt16](repeating: 0, count: ArchivePlan.shifts.count * lowBitCounts * alphabet)
    private var isCounted = [Bool](repeating: false, count: ArchivePlan.shifts.count * lowBitCounts)

    /// The table in which a component takes the fewest bits, and how many, in units of 1/256 bit.
    ///
    /// - Parameters:
    ///   - codes: the component's numbers, those of each shift together.
    ///   - segments: how many there are of each.
    /// - Returns: nil if all are 0.
    mutating func best(_ codes: UnsafePointer<Int16>, segments: [Int]) -> (table: ComponentTable, cost: Int)? {
        // Squares of a segment have an exact sum in 64 bits, and the division by a power of two is exact.
        var variance = 0.0
        var start = 0
        for (shift, count) in segments.enumerated() {
            let sum = unsafe tck_sum_of_squares(codes + start, count)
            variance += Double(sum) / Double(1 << (2 * shift))
            start += count
        }
        guard variance > 0 else { return nil }
        variance /= Double(start)
        let middle = Self.limits.firstIndex { variance < $0 } ?? ComponentTable.scales.upperBound - 1
        var best: (table: ComponentTable, cost: Int)?
        let scales = (middle + Self.tried.lowerBound...middle + Self.tried.upperBound)
            .clamped(to: ComponentTable.scales.lowerBound...ComponentTable.scales.upperBound - 1)
        for index in isCounted.indices { isCounted[index] = false }
        unsafe counts.withUnsafeMutableBufferPointer { counts in
            guard let base = counts.baseAddress else { return }
            for scale in scales {
                for family in 0..<ComponentTable.families {
                    let table = ComponentTable(family: family, scale: scale)
                    var cost = 0
                    var start = 0
                    for (shift, count) in segments.enumerated() where count > 0 {
                        let (number, lowBits) = table.symbols(shift: shift)
                        let index = shift * Self.lowBitCounts + lowBits
                        let counts = unsafe base + index * Self.alphabet
                        if !isCounted[index] {
                            isCounted[index] = true
                            unsafe tck_count_symbols(codes + start, count, UInt32(lowBits), counts)
                        }
                        cost += unsafe count * lowBits * 256 + Int(tck_symbols_cost(number, counts))
                        start += count
                    }
                    if best.map({ cost < $0.cost }) ?? true { best = (table, cost) }
                }
            }
        }
        return best
    }
}
