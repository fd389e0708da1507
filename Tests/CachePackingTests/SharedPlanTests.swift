import Testing
import ThinkCompress

@testable import CachePacking

/// What heads keep beside their plans.
@Suite struct SharedPlanTests {
    private static let shape = BlockShape(
        kvHeads: 1,
        headDimension: 4,
        elementType: .float16,
        blockLength: 32,
        residualWindow: 0
    )

    private static func plan(_ channels: [UInt16], means: [Float] = []) -> HeadPlan {
        HeadPlan(keyRuns: [.init(width: 2, channels: channels)], valueWidth: 2, prunedMeans: means)
    }

    @Test("equal plans share a coder, others have their own")
    func sharing() {
        let plans = [Self.plan([0, 1]), Self.plan([0, 2]), Self.plan([0, 1]), Self.plan([0, 2])]
        let coders = BlockCoder.coders(for: plans, shape: Self.shape)
        #expect(coders.map(\.plan) == plans)
        #expect(coders[0] === coders[2] && coders[1] === coders[3] && coders[0] !== coders[1])
    }

    @Test("a row of stand-ins is kept only where there are means")
    func rows() {
        let plans = [Self.plan([0, 2]), Self.plan([0, 2], means: [1, 2])]
        let coders = BlockCoder.coders(for: plans, shape: Self.shape)
        #expect(coders.map(\.prunedRow) == [[], [0, 1, 0, 2]])
    }

    @Test("means that are equal but for the sign of zero stay as they are")
    func zeros() {
        let plans = [Self.plan([0, 1, 2], means: [0]), Self.plan([0, 1, 2], means: [-0.0])]
        let coders = BlockCoder.coders(for: plans, shape: Self.shape)
        #expect(coders.map { $0.plan.prunedMeans[0].sign } == [.plus, .minus])
    }
}
