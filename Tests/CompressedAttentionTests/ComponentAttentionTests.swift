import TestSupport
import Testing
import ThinkCompress

/// Attention over keys and values that are coded as components.
@Suite struct ComponentAttentionTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var bits = "2"
        var dimension = 64
        var tokens = 700
        var queries = 1
        var newTokens = 0
        var testDescription: String {
            "\(bits) bits, dimension \(dimension), \(queries) queries over \(tokens) tokens and \(newTokens) new ones"
        }
    }

    private static func sample(_ test: Case) async throws -> AttentionSample {
        var maker = TestCache()
        (maker.layers, maker.queryHeads, maker.headDimension) = (1, 8, test.dimension)
        maker.tokens = test.tokens + test.newTokens
        maker.window = max(test.queries, 32)
        let source = try maker.makeQuickly().withRandomBases().layers[0]
        return try await AttentionSample(
            recipe: "calibrated(bits=\(test.bits))",
            source: source,
            newTokens: test.newTokens,
            queryCount: test.queries
        )
    }

    @Test(
        "gives what restored rows give",
        arguments: [
            Case(), Case(bits: "1"), Case(bits: "4"), Case(dimension: 128, tokens: 1200), Case(dimension: 40),
            Case(queries: 7, newTokens: 7), Case(queries: 300), Case(tokens: 100),
        ],
        [Attention.Precision.precise, .fast]
    )
    func agrees(_ test: Case, precision: Attention.Precision) async throws {
        let sample = try await Self.sample(test)
        for threads in [1, 3] {
            let error = try sample.error(Attention(precision: precision), threads: threads)
            #expect(error <= (precision == .precise ? 5e-4 : 3.5e-2), "\(error)")
        }
    }

    @Test("sliding windows and soft caps hold")
    func options() async throws {
        let sample = try await Self.sample(Case(queries: 5, newTokens: 5))
        let attention = Attention(slidingWindow: 400, logitSoftCap: 20, precision: .precise)
        #expect(try sample.error(attention) <= 5e-4)
    }
}
