import Testing

@testable import CalibratedCoding

struct ComponentAllocationTests {
    /// Widths 2 and 1: a line for each 8 components of 2 bits, and for each 16 of 1.
    private let allocation = ComponentAllocation(
        byteCounts: [{ ($0 + 7) / 8 * 64 }, { ($0 + 15) / 16 * 64 }],
        blockByteCount: { counts in
            counts.reduce(0) { $0 + ($1[0] + 7) / 8 * 64 + ($1[1] + 15) / 16 * 64 }
        }
    )

    private func head(_ variances: [Double], weight: Double = 1) -> ComponentAllocation.Head {
        ComponentAllocation.Head(
            units: [
                ComponentAllocation.Unit(
                    losses: [variances.map { $0 / 16 }, variances.map { $0 / 4 }],
                    droppingLosses: variances
                )
            ],
            weight: weight
        )
    }

    @Test func bitsGoWhereErrorsCostMost() {
        let large = head([Double](repeating: 100, count: 8) + [Double](repeating: 1, count: 8))
        let small = head([Double](repeating: 0.01, count: 16))
        #expect(allocation.allocate([large, small], budget: 128) == [[[8, 0]], [[0, 16]]])
        #expect(allocation.allocate([large, small], budget: 192) == [[[16, 0]], [[0, 16]]])
        #expect(allocation.allocate([large, small], budget: 256) == [[[16, 0]], [[16, 0]]])
    }

    @Test func theLeastIsAQuadOfTheNarrowest() {
        let heads = [head([Double](repeating: 1, count: 16)), head([1, 1])]
        #expect(allocation.allocate(heads, budget: 127) == nil)
        #expect(allocation.allocate(heads, budget: 128) == [[[0, 16]], [[2, 0]]])
        // Components of a narrow unit cost as many lines at any width; where lines are dear the narrowest are taken.
        #expect(allocation.allocate([head([1, 1], weight: 2)], budget: 128) == [[[2, 0]]])
    }

    @Test func bytesOfLighterHeadsCountLess() {
        let variances = [Double](repeating: 1, count: 16)
        let heads = [head(variances), head(variances, weight: 0.25)]
        #expect(allocation.allocate(heads, budget: 96) == [[[0, 16]], [[16, 0]]])
    }
}
