/// Gives the channels of several KV heads widths of least total loss whose blocks take no more than a budget.
///
/// Channels come in order, most important first, and a head's widths never rise along it: the widest run comes first,
/// pruned channels last. A run is made of *steps*, the fewest channels whose codes fill whole lines, and what a head takes
/// is rounded up to whole lines, so that what is counted is what a block takes. Under these rules the result is the best
/// there is: Formats/think.md, "Soft pruning".
struct WidthAllocation {
    /// Units of memory in a line.
    static let unitsPerLine = 8

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
    func allocate(_ heads: [Head], lines budget: Int) -> [[Int]]? {
        let tables = heads.map { head in
            HeadTable(head, steps: steps, lineLimit: min(mostLines(channels: head.pruningLosses.count), budget))
        }
        // The least loss of the heads so far, by lines, and the lines of the last of them.
        var totals: [Double] = [0]
        var shares: [[Int]] = []
        for table in tables {
            let count = min(totals.count + table.losses.count - 1, budget + 1)
            var next = [Double](repeating: .infinity, count: max(count, 0))
            var share = [Int](repeating: 0, count: next.count)
            for (own, loss) in table.losses.enumerated() where loss < .infinity {
                for (others, total) in totals.enumerated() {
                    let lines = own + others
                    guard lines < next.count else { break }
                    if total + loss < next[lines] { (next[lines], share[lines]) = (total + loss, own) }
                }
            }
            totals = next
            shares.append(share)
        }
        // The fewest lines of the least loss.
        var best: Int?
        for (lines, total) in totals.enumerated()
        where total < totals[best ?? lines] || best == nil && total < .infinity {
            best = lines
        }
        guard var lines = best else { return nil }
        var counts = [[Int]](repeating: [], count: heads.count)
        for index in heads.indices.reversed() {
            let own = shares[index][lines]
            counts[index] = tables[index].counts(lines: own)
            lines -= own
        }
        return counts
    }

    fileprivate static func lines(units: Int) -> Int { (units + unitsPerLine - 1) / unitsPerLine }

    /// The most lines that a head of so many channels can take: all of them at the width that takes most, step by step.
    func mostLines(channels: Int) -> Int {
        let units = steps.map { step in (channels + step.channels - 1) / step.channels * step.units(step.channels) }
        return Self.lines(units: units.max() ?? 0)
    }

    /// How many pairs of lines `allocate` compares for heads of so many channels each.
    func comparisons(channels: [Int], lines budget: Int) -> Int {
        var total = 0
        return channels.reduce(0) { sum, count in
            let lines = min(mostLines(channels: count), budget)
            defer { total = min(total + lines, budget) }
            return sum + total * lines
        }
    }

    /// The fewest lines that a head of so many channels can take, if not all of them can be pruned.
    func leastLines(channels: Int, canPrune: Bool) -> Int {
        let units = steps.map { step in
            let kept = canPrune ? min(step.channels, channels) : channels
            return kept / step.channels * step.units(step.channels) + step.units(kept % step.channels)
        }
        return Self.lines(units: units.min() ?? 0)
    }
}

/// The least loss of a head for every number of lines, by dynamic programming over widths, channels and units.
private struct HeadTable {
    /// By lines; infinite where no choice takes just so many.
    private(set) var losses: [Double]
    private let steps: [WidthAllocation.Step]
    /// Channels after each number of steps of the narrowest: places where a run may end.
    private let places: [Int]
    private let unitCount: Int
    /// For each width, place and units: the place where the last step to there began, if it was of this width, else -1.
    private var origins: [[Int32]] = []
    /// The place where the coded channels end, and the units that they take, by lines.
    private var ends: [(place: Int, units: Int)]

    init(_ head: WidthAllocation.Head, steps: [WidthAllocation.Step], lineLimit: Int) {
        let channels = head.pruningLosses.count
        let unit = steps.map(\.channels).min() ?? 1
        self.steps = steps
        places = Array(stride(from: 0, to: channels, by: unit)) + [channels]
        unitCount = lineLimit * WidthAllocation.unitsPerLine + 1
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
        var byUnits = [Double](repeating: .infinity, count: unitCount)
        var places = [Int](repeating: 0, count: unitCount)
        var pruned = 0.0
        var next = channels
        for place in self.places.indices.dropFirst().reversed() {
            for channel in (self.places[place]..<next).reversed() { pruned += head.pruningLosses[channel] }
            next = self.places[place]
            for units in 0..<unitCount where table[place * unitCount + units] + pruned < byUnits[units] {
                (byUnits[units], places[units]) = (table[place * unitCount + units] + pruned, place)
            }
        }
        losses = [Double](repeating: .infinity, count: lineLimit + 1)
        ends = [(place: Int, units: Int)](repeating: (0, 0), count: lineLimit + 1)
        for (units, loss) in byUnits.enumerated() {
            let lines = WidthAllocation.lines(units: units)
            if loss < losses[lines] { (losses[lines], ends[lines]) = (loss, (places[units], units)) }
        }
    }

    /// Channels of each width in the best choice of so many lines.
    func counts(lines: Int) -> [Int] {
        var counts = [Int](repeating: 0, count: steps.count)
        var (place, left) = ends[lines]
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
