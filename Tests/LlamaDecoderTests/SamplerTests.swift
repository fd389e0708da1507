import LlamaDecoder
import Testing
import ThinkCompress

@Suite struct SamplerTests {
    @Test func theLikeliestTokenIsTakenAndOfEqualOnesTheFirst() throws {
        var sampler = Sampler()
        #expect(try sampler.choose([0, 3, 1, 3]) == 1)
        #expect(try sampler.choose([-5, -5]) == 0)
        #expect(try sampler.choose([-Float.infinity, -1e30, .nan]) == 1)
    }

    @Test(arguments: [[Float.nan, .nan], [-Float.infinity], [0, .infinity]])
    func logitsThatAreNoNumbersAreAnError(logits: [Float]) {
        var sampler = Sampler()
        #expect(throws: ModelError.self) { try sampler.choose(logits) }
    }

    @Test func aSeedDeterminesTheChoices() throws {
        let logits: [Float] = (0..<50).map { Float($0 % 7) }
        func choices(seed: UInt64) throws -> [Int32] {
            var sampler = Sampler(temperature: 1, seed: seed)
            return try (0..<40).map { _ in try sampler.choose(logits) }
        }
        #expect(try choices(seed: 1) == choices(seed: 1))
        #expect(try choices(seed: 1) != choices(seed: 2))
    }

    @Test func tokensAreDrawnByTheirProbabilities() throws {
        // Probabilities at temperature 1: 0.5, 0.25, 0.25.
        let logits: [Float] = [0, -0.693_147, -0.693_147]
        var sampler = Sampler(temperature: 1, seed: 3)
        var counts = [0, 0, 0]
        for _ in 0..<4000 { counts[Int(try sampler.choose(logits))] += 1 }
        // Three standard deviations of 4000 draws.
        #expect(abs(counts[0] - 2000) < 95)
        #expect(abs(counts[1] - 1000) < 83)
    }

    @Test func lowTemperaturesPreferTheLikeliest() throws {
        var sampler = Sampler(temperature: 0.01, seed: 4)
        for _ in 0..<100 { #expect(try sampler.choose([1, 1.5, 1]) == 1) }
    }

    @Test func topPKeepsTheFewestTokensThatReachIt() throws {
        let logits: [Float] = [0, -0.693_147, -0.693_147, -30]
        var sampler = Sampler(temperature: 1, topP: 0.6, seed: 5)
        var seen: Set<Int32> = []
        for _ in 0..<200 { seen.insert(try sampler.choose(logits)) }
        #expect(seen == [0, 1])
    }
}
