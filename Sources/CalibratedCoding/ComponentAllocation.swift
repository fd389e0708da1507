internal import CachePacking

/// Gives the components of many KV heads' keys and values widths of least total loss whose blocks take no more than a
/// budget: Formats/calibrated.md, "Widths".
///
/// Components come in order, those first whose dropping loses most, and widths never rise along it: wide runs come first,
/// dropped components last. What a run takes is what its lines and scales take in a block.
struct ComponentAllocation: Sendable {
    /// Keys or values of a KV head.
    struct Unit: Sendable {
        /// `losses[w][i]`: what coding the component at place i in width w loses, widths from wide to narrow.
        let losses: [[Double]]
        /// What dropping the component at place i loses.
        let droppingLosses: [Double]
    }

    /// A KV head: its keys and its values, and how much its bytes count beside other heads'.
    struct Head: Sendable {
        let units: [Unit]
        let weight: Double
    }

    /// Bytes of so many components in a block, for each width, wide to narrow.
    let byteCounts: [@Sendable (_ components: Int) -> Int]
    /// Bytes of a head's block with so many components of each width in each of its units.
    let blockByteCount: @Sendable (_ counts: [[Int]]) -> Int

    /// Components that are coded together at least: a quad, which takes scales of four.
    private static let quad = 4
    /// Prices of a byte that are tried, one after another: enough to halve any range of them to nothing.
    private static let steps = 96

    /// Components of each width, for each head and unit; nil if even the least that can be stored takes too much.
    ///
    /// - Parameter budget: bytes of all heads' blocks, each times its head's weight.
    func allocate(_ heads: [Head], budget: Double) -> [[[Int]]]? {
        func total(_ counts: [[[Int]]]) -> Double {
            zip(heads, counts).reduce(0) { $0 + $1.0.weight * Double(blockByteCount($1.1)) }
        }
        var best = choices(heads, price: .infinity)
        guard total(best) <= budget else { return nil }
        let free = choices(heads, price: 0)
        if total(free) <= budget { return free }
        // Of prices too low and high enough, as powers of two.
        var (low, high) = (-200.0, 200.0)
        for _ in 0..<Self.steps {
            let middle = (low + high) / 2
            let found = choices(heads, price: Self.power(middle))
            if total(found) <= budget {
                (best, high) = (found, middle)
            } else {
                low = middle
            }
        }
        return best
    }

    /// 2^x, nearly, and the same everywhere: linear between whole powers.
    private static func power(_ exponent: Double) -> Double {
        let whole = exponent.rounded(.down)
        return Double(sign: .plus, exponent: Int(whole), significand: 1 + (exponent - whole))
    }

    private func choices(_ heads: [Head], price: Double) -> [[[Int]]] {
        heads.map { head in head.units.map { choice($0, price: price * head.weight) } }
    }

    /// The counts of least loss and price of a unit: by dynamic programming over widths and places where runs may end.
    private func choice(_ unit: Unit, price: Double) -> [Int] {
        let components = unit.droppingLosses.count
        let places = Array(stride(from: 0, to: components, by: Self.quad)) + [components]
        guard price < .infinity else {
            var counts = [Int](repeating: 0, count: byteCounts.count)
            counts[counts.count - 1] = min(Self.quad, components)
            return counts
        }
        // The least for the first components up to a place, with the widths so far, and where the last run began.
        var least = [Double](repeating: .infinity, count: places.count)
        least[0] = 0
        var starts: [[Int]] = []
        for (losses, byteCount) in zip(unit.losses, byteCounts) {
            var sums: [Double] = [0]
            for loss in losses { sums.append(sums[sums.count - 1] + loss) }
            let costs = places.map { price * Double(byteCount($0)) }
            var next = least
            var start = Array(places.indices)
            for end in places.indices.dropFirst() {
                for from in 0..<end {
                    // A run that ends within a quad takes what a whole one does.
                    let run = least[from] + (sums[places[end]] - sums[places[from]]) + costs[end - from]
                    if run < next[end] { (next[end], start[end]) = (run, from) }
                }
            }
            least = next
            starts.append(start)
        }
        var dropped = 0.0
        var bestPlace = places.count - 1
        var bestTotal = Double.infinity
        var nextComponent = components
        for place in places.indices.dropFirst().reversed() {
            for component in (places[place]..<nextComponent).reversed() { dropped += unit.droppingLosses[component] }
            nextComponent = places[place]
            if least[place] + dropped < bestTotal { (bestTotal, bestPlace) = (least[place] + dropped, place) }
        }
        var counts = [Int](repeating: 0, count: byteCounts.count)
        for width in byteCounts.indices.reversed() {
            let from = starts[width][bestPlace]
            counts[width] = places[bestPlace] - places[from]
            bestPlace = from
        }
        return counts
    }
}
