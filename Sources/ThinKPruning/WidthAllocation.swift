/// Gives the channels of several KV heads widths of least total loss whose blocks take no more than a budget.
///
/// Channels come in order, most important first, and a head's widths never rise along it: the widest run comes first,
/// pruned channels last. A run is made of *steps*, the fewest channels whose codes fill whole lines, so that what is
/// counted is what a block takes. Under these rules the result is the best there is: Formats/think.md, "Soft pruning".
struct WidthAllocation {
    /// How many channels of a width come together, and what they take.
    struct Step: Sendable {
        let width: Int
        let channels: Int
        /// Units of memory of a number of channels of this width, at most a step.
        let units: @Sendable (_ channels: Int) -> Int
    }

    /// What widths cost a head.
    struct Head: Sendable {
        /// `losses[w][i]`: what coding the channel at place i in `steps[w].width` bits loses.
        let losses: [[Double]]
        /// What pruning the channel at place i loses; infinite where that is not allowed.
        let pruningLosses: [Double]
    }

    /// Widths, from wide to narrow.
    let steps: [Step]

    /// Channels of each step's width in each head, for the least loss within a budget; nil if nothing is that small.
    func allocate(_ heads: [Head], units budget: Int) -> [[Int]]? {
        let tables = heads.map { head in
            HeadTable(head, steps: steps, limit: min(mostUnits(channels: head.pruningLosses.count), budget))
        }
        // The least loss of the heads so far, by units, and the units of the last of them.
        var totals: [Double] = [0]
        var shares: [[Int]] = []
        for table in tables {
            let count = min(totals.count + table.losses.count - 1, budget + 1)
            var next = [Double](repeating: .infinity, count: max(count, 0))
            var share = [Int](repeating: 0, count: next.count)
            for (own, loss) in table.losses.enumerated() where loss < .infinity {
                for (others, total) in totals.enumerated() {
                    let units = own + others
                    guard units < next.count else { break }
                    if total + loss < next[units] { (next[units], share[units]) = (total + loss, own) }
                }
            }
            totals = next
            shares.append(share)
        }
        // The fewest units of the least loss.
        var best: Int?
        for (units, total) in totals.enumerated()
        where total < totals[best ?? units] || best == nil && total < .infinity {
            best = units
        }
        guard var units = best else { return nil }
        var counts = [[Int]](repeating: [], count: heads.count)
        for index in heads.indices.reversed() {
            let own = shares[index][units]
            counts[index] = tables[index].counts(units: own)
            units -= own
        }
        return counts
    }

    /// The most units that a head of so many channels can take: all of them at the width that takes most, step by step.
    func mostUnits(channels: Int) -> Int {
        steps.map { step in (channels + step.channels - 1) / step.channels * step.units(step.channels) }.max() ?? 0
    }

    /// How many pairs of units `allocate` compares for heads of so many channels each.
    func comparisons(channels: [Int], units budget: Int) -> Int {
        var total = 0
        return channels.reduce(0) { sum, count in
            let units = min(mostUnits(channels: count), budget)
            defer { total = min(total + units, budget) }
            return sum + total * units
        }
    }

    /// The fewest units that a head of so many channels can take, if not all of them can be pruned.
    func leastUnits(channels: Int, canPrune: Bool) -> Int {
        steps.map { step in
            let kept = canPrune ? min(step.channels, channels) : channels
            return kept / step.channels * step.units(step.channels) + step.units(kept % step.channels)
        }.min() ?? 0
    }
}

/// The least loss of a head for every number of units, by dynamic programming over widths, channels and units.
private struct HeadTable {
    /// By units; infinite where no choice takes just so many.
    private(set) var losses: [Double]
    private let steps: [WidthAllocation.Step]
    /// Channels after each number of steps of the narrowest: places where a run may end.
    private let places: [Int]
    private let unitCount: Int
    /// For each width, place and units: the place where the last step to there began, if it was of this width, else -1.
    private var origins: [[Int32]] = []
    /// The place where the coded channels end, by units.
    private var ends: [Int]

    init(_ head: WidthAllocation.Head, steps: [WidthAllocation.Step], limit: Int) {
        let channels = head.pruningLosses.count
        let unit = steps.map(\.channels).min() ?? 1
        self.steps = steps
        places = Array(stride(from: 0, to: channels, by: unit)) + [channels]
        unitCount = limit + 1
        var table = [Double](repeating: .infinity, count: places.count * unitCount)
        table[0] = 0
        for (step, losses) in zip(steps, head.losses) {
            var sums: [Double] = [0]
            for loss in losses { sums.append(sums[sums.count - 1] + loss) }
            var origin = [Int32](repeating: -1, count: table.count)
            for place in places.indices.dropLast() {
                let end = min(place + step.channels / unit, places.count - 1)
                let units = step.units(places[end] - places[place])
                let loss = sums[places[end]] - sums[places[place]]
                for from in 0..<max(unitCount - units, 0) {
                    let (source, target) = (place * unitCount + from, end * unitCount + from + units)
                    if table[source] + loss < table[target] {
                        table[target] = table[source] + loss
                        origin[target] = Int32(place)
                    }
                }
            }
            origins.append(origin)
        }
        // What is left is pruned, but at least one channel is kept.
        losses = [Double](repeating: .infinity, count: unitCount)
        ends = [Int](repeating: 0, count: unitCount)
        var pruned = 0.0
        var next = channels
        for place in places.indices.dropFirst().reversed() {
            for channel in (places[place]..<next).reversed() { pruned += head.pruningLosses[channel] }
            next = places[place]
            for units in 0..<unitCount where table[place * unitCount + units] + pruned < losses[units] {
                (losses[units], ends[units]) = (table[place * unitCount + units] + pruned, place)
            }
        }
    }

    /// Channels of each width in the best choice of so many units.
    func counts(units: Int) -> [Int] {
        var counts = [Int](repeating: 0, count: steps.count)
        var (place, left) = (ends[units], units)
        for index in steps.indices.reversed() {
            while true {
                let start = Int(origins[index][place * unitCount + left])
                guard start >= 0 else { break }
                counts[index] += places[place] - places[start]
                left -= steps[index].units(places[place] - places[start])
                place = start
            }
        }
        return counts
    }
}
