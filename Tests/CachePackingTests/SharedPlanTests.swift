import Testing
import ThinkCompress

@testable import CachePacking

/// What heads keep beside their plans.
@Suite struct SharedPlanTests {
    private static let shape = BlockShape(elementType: .float16, blockLength: 32, residualWindow: 0)

    /// Coders of heads that keep such channels, and put such means in the place of others.
    private static func coders(_ heads: [(channels: [UInt16], means: [Float])]) throws -> [BlockCoder] {
        let geometry = try LayerGeometry(kvHeads: heads.count, keyDimension: 4, valueDimension: 4)
        let coding = try Coding(width: 2)
        let plans = try heads.map {
            try HeadPlan(
                keyRuns: [.init(coding, channels: $0.channels)],
                values: coding,
                keyMeans: $0.means,
                geometry: geometry
            )
        }
        return BlockCoder.coders(for: LayerPlan(geometry: geometry, heads: plans), shape: shape)
    }

    @Test("equal plans share a coder, others have their own")
    func sharing() throws {
        let coders = try Self.coders([([0, 1], []), ([0, 2], []), ([0, 1], []), ([0, 2], [])])
        #expect(coders.map { $0.plan.keyRuns[0].channels } == [[0, 1], [0, 2], [0, 1], [0, 2]])
        #expect(coders[0] === coders[2] && coders[1] === coders[3] && coders[0] !== coders[1])
    }

    @Test("a row of stand-ins is kept only where there are means")
    func rows() throws {
        let coders = try Self.coders([([0, 2], []), ([0, 2], [1, 2])])
        #expect(coders.map(\.keyMeans) == [[], [0, 1, 0, 2]])
    }

    @Test("means that are equal but for the sign of zero stay as they are")
    func zeros() throws {
        let coders = try Self.coders([([0, 1, 2], [0]), ([0, 1, 2], [-0.0])])
        #expect(coders.map { $0.plan.keyMeans[0].sign } == [.plus, .minus])
    }
}
