internal import CThinkKernels

/// Chooses how a component of a chunk is coded.
struct ComponentCosts {
    /// Costs of the symbols in each table, in units of 1/256 bit.
    private let costs: [[Int]]
    /// Upper ends of the scales' variances: the first that a variance is below is that of its scale.
    private let limits: [Double]
    private var histograms: [[Int]]

    init() {
        costs = (0..<UInt32(TCK_SYMBOL_TABLES)).map { table in
            let costs = unsafe UnsafeBufferPointer(start: tck_symbol_costs(table), count: Self.alphabet)
            return unsafe costs.map(Int.init)
        }
        // 2^(scale / 2 - 10 + 1/4), by square roots alone, which are the same everywhere.
        let root = 2.0.squareRoot()
        let quarter = root.squareRoot()
        limits = ComponentTable.scales.map { scale in
            let octaves = scale / 2 - 10
            let power = Double(sign: .plus, exponent: octaves, significand: 1)
            return power * quarter * (scale % 2 == 0 ? 1 : root)
        }
        histograms = []
    }

    /// Symbols of a table: those of both signs and the escape.
    private static let alphabet = 2 * Int(TCK_SYMBOL_LIMIT) + 2
    /// Scales about that of the variance that are tried, below and above.
    private static let tried = -4...3

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
            var sum: Int64 = 0
            for index in start..<start + count {
                let code = unsafe Int64(codes[index])
                sum &+= code &* code
            }
            variance += Double(sum) / Double(1 << (2 * shift))
            start += count
        }
        guard variance > 0 else { return nil }
        variance /= Double(start)
        let middle = limits.firstIndex { variance < $0 } ?? ComponentTable.scales.upperBound - 1
        var best: (table: ComponentTable, cost: Int)?
        let scales = (middle + Self.tried.lowerBound...middle + Self.tried.upperBound)
            .clamped(to: ComponentTable.scales.lowerBound...ComponentTable.scales.upperBound - 1)
        // Histograms by shift and number of low bits.
        var known: [Int: Int] = [:]
        var used = 0
        for scale in scales {
            for family in 0..<ComponentTable.families {
                let table = ComponentTable(family: family, scale: scale)
                var cost = 0
                var start = 0
                for (shift, count) in segments.enumerated() where count > 0 {
                    let (number, lowBits) = table.symbols(shift: shift)
                    let key = shift * 16 + lowBits
                    if known[key] == nil {
                        known[key] = used
                        if used == histograms.count { histograms.append([]) }
                        unsafe fill(&histograms[used], codes + start, count: count, lowBits: lowBits)
                        used += 1
                    }
                    let histogram = histograms[known[key] ?? 0]
                    cost += count * lowBits * 256
                    unsafe costs[Int(number)].withUnsafeBufferPointer { costs in
                        unsafe histogram.withUnsafeBufferPointer { counts in
                            for symbol in 0..<Self.alphabet { unsafe cost &+= costs[symbol] &* counts[symbol] }
                        }
                    }
                    start += count
                }
                if best.map({ cost < $0.cost }) ?? true { best = (table, cost) }
            }
        }
        return best
    }

    private func fill(_ counts: inout [Int], _ codes: UnsafePointer<Int16>, count: Int, lowBits: Int) {
        counts = [Int](repeating: 0, count: Self.alphabet)
        let limit = Int(TCK_SYMBOL_LIMIT)
        unsafe counts.withUnsafeMutableBufferPointer { counts in
            for index in 0..<count {
                let symbol = unsafe ArchiveRecord.split(codes[index], lowBits: lowBits).symbol
                unsafe counts[symbol.magnitude <= limit ? symbol + limit : Self.alphabet - 1] += 1
            }
        }
    }
}
