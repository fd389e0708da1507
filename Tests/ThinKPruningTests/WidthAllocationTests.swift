import TestSupport
import Testing
import ThinkCompress

@testable import ThinKPruning

@Suite struct WidthAllocationTests {
    /// Widths of 4, 3 and 2 bits: so many channels a step, and units that a number of channels takes.
    private static let steps = [
        WidthAllocation.Step(width: 4, channels: 1) { $0 * 9 },
        WidthAllocation.Step(width: 3, channels: 4) { $0 == 0 ? 0 : 24 + 2 * $0 },
        WidthAllocation.Step(width: 2, channels: 2) { $0 == 0 ? 0 : 8 + $0 },
    ]

    /// Every way to divide a head's channels.
    private static func choices(channels: Int, canPrune: Bool) -> [[Int]] {
        var result: [[Int]] = []
        func extend(_ counts: [Int], index: Int, placed: Int) {
            guard index < steps.count else {
                if placed == channels || canPrune && placed > 0 { result.append(counts) }
                return
            }
            let step = steps[index].channels
            for count in 0...channels - placed where count % step == 0 || placed + count == channels {
                extend(counts + [count], index: index + 1, placed: placed + count)
            }
        }
        extend([], index: 0, placed: 0)
        return result
    }

    private static func units(_ counts: [Int]) -> Int {
        zip(steps, counts).reduce(0) { sum, part in
            let (step, count) = part
            return sum + count / step.channels * step.units(step.channels) + step.units(count % step.channels)
        }
    }

    private static func lines(_ counts: [Int]) -> Int { (units(counts) + 7) / 8 }

    private static func loss(_ counts: [Int], of head: WidthAllocation.Head) -> Double {
        var next = 0
        var loss = 0.0
        for (losses, count) in zip(head.losses, counts) {
            loss += losses[next..<next + count].reduce(0, +)
            next += count
        }
        return next < head.pruningLosses.count ? loss + head.pruningLosses[next...].reduce(0, +) : loss
    }

    private static func head(channels: Int, canPrune: Bool, using generator: inout SplitMix64) -> WidthAllocation.Head {
        let pruning = (0..<channels).map { _ in Double(generator.normal().magnitude) }.sorted(by: >)
        return WidthAllocation.Head(
            losses: [0.01, 0.04, 0.16].map { factor in
                pruning.map { $0 * factor * Double(1 + generator.normal().magnitude / 4) }
            },
            pruningLosses: canPrune ? pruning : pruning.map { _ in .infinity }
        )
    }

    @Test("loses the least that any choice within the budget does", arguments: 1...9, [false, true])
    func isBest(channels: Int, canPrune: Bool) {
        var generator = SplitMix64(seed: UInt64(channels))
        let heads = (0..<2).map { _ in Self.head(channels: channels, canPrune: canPrune, using: &generator) }
        let choices = Self.choices(channels: channels, canPrune: canPrune)
        let allocation = WidthAllocation(steps: Self.steps)
        let least = heads.reduce(0) { $0 + allocation.leastLines(channels: $1.pruningLosses.count, canPrune: canPrune) }
        for budget in 0...channels * 3 {
            var best = Double.infinity
            for first in choices {
                for second in choices where Self.lines(first) + Self.lines(second) <= budget {
                    best = min(best, Self.loss(first, of: heads[0]) + Self.loss(second, of: heads[1]))
                }
            }
            guard let counts = allocation.allocate(heads, lines: budget) else {
                #expect(best == .infinity && budget < least)
                continue
            }
            #expect(budget >= least)
            #expect(counts.reduce(0) { $0 + Self.lines($1) } <= budget)
            let loss = zip(counts, heads).reduce(0) { $0 + Self.loss($1.0, of: $1.1) }
            #expect(abs(loss - best) <= 1e-12 * (1 + best), "budget \(budget): \(counts)")
        }
    }

    @Test("takes the fewest units of equal losses")
    func fewestUnits() {
        let head = WidthAllocation.Head(
            losses: [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
            pruningLosses: [0, 0, 0, 0]
        )
        let allocation = WidthAllocation(steps: Self.steps)
        #expect(allocation.allocate([head, head], lines: 1000) == [[1, 0, 0], [1, 0, 0]])
    }
}
