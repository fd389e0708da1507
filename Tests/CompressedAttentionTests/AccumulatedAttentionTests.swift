import Foundation
import TestSupport
import Testing
import ThinkCompress

@Suite("Attention that is added up is that of float64 softmax")
struct AccumulatedAttentionTests {
    /// Keys, values and queries of tokens that follow others which are not there any more.
    struct Sample: Sendable, CustomTestStringConvertible {
        var tokens: Int
        var queryCount: Int
        var skipped = 0
        var attention = Attention()
        var kvHeads = 2
        var group = 3
        var dimension = 20

        var testDescription: String {
            "\(queryCount) queries of \(kvHeads) times \(group) heads, \(tokens) tokens after \(skipped), \(attention)"
        }

        func layer() throws -> KVCacheLayer {
            var generator = SplitMix64(seed: UInt64(tokens))
            let geometry = try LayerGeometry(
                queryHeads: kvHeads * group,
                kvHeads: kvHeads,
                keyDimension: dimension,
                valueDimension: dimension
            )
            return .random(geometry, elementType: .float32, rows: tokens, using: &generator)
        }

        func queries() -> KVTensor {
            var generator = SplitMix64(seed: 3)
            return .random(
                elementType: .float32,
                heads: kvHeads * group,
                tokens: queryCount,
                headDimension: dimension,
                using: &generator
            )
        }

        func run(threads: Int) throws -> (output: [Float], sums: [[Double]], plain: [Float]) {
            let (source, queries) = (try layer(), queries())
            let geometry = try source.geometry()
            let plan = LayerPlan(
                geometry: geometry,
                heads: [HeadPlan](repeating: HeadPlan(fullPrecision: geometry), count: kvHeads)
            )
            let empty = CompressedLayer(
                shape: BlockShape(elementType: .float32, blockLength: 32, residualWindow: 0),
                index: 0,
                plan: plan,
                held: skipped == 0 ? .all : .last,
                skippedTokens: skipped
            )
            let workers = WorkerThreads(threadCount: threads)
            var output = [Float](repeating: .nan, count: queryCount * kvHeads * group * dimension)
            var plain = output
            var span = output.mutableSpan
            let sums = try attention.attendAccumulating(
                queries,
                over: empty,
                followedBy: source,
                using: workers,
                into: &span
            )
            var plainSpan = plain.mutableSpan
            try attention.attend(queries, over: empty, followedBy: source, using: workers, into: &plainSpan)
            return (output, sums, plain)
        }

        /// The sums, by the formula.
        func expected() throws -> [[Double]] {
            let (keys, queries) = (try layer().keys.numbers, queries().numbers)
            let scale = Double(attention.scale ?? 1 / Float(dimension).squareRoot())
            return (0..<kvHeads).map { head in
                var sums = [Double](repeating: 0, count: tokens)
                for queryHead in head * group..<(head + 1) * group {
                    for query in 0..<queryCount {
                        let end = tokens - queryCount + query + 1
                        let seen = max(end - (attention.slidingWindow ?? .max), 0)..<end
                        let weights = seen.map { token -> Double in
                            let products = (0..<dimension).map { channel in
                                Double(queries[(queryHead * queryCount + query) * dimension + channel])
                                    * Double(keys[(head * tokens + token) * dimension + channel])
                            }
                            let score = products.reduce(0, +) * scale
                            return exp(attention.logitSoftCap.map { Double($0) * tanh(score / Double($0)) } ?? score)
                        }
                        let sink = attention.sinkLogits.map { exp(Double($0[queryHead])) } ?? 0
                        let total = weights.reduce(sink, +)
                        for (token, weight) in zip(seen, weights) { sums[token] += weight / total }
                    }
                }
                return sums
            }
        }
    }

    static let samples = [
        Sample(tokens: 1, queryCount: 1), Sample(tokens: 9, queryCount: 9), Sample(tokens: 300, queryCount: 300),
        Sample(tokens: 700, queryCount: 260), Sample(tokens: 513, queryCount: 2),
        Sample(tokens: 70_000, queryCount: 120, kvHeads: 1, group: 1, dimension: 1),
        Sample(tokens: 600, queryCount: 256, group: 1),
        Sample(tokens: 400, queryCount: 400, skipped: 50, attention: Attention(slidingWindow: 70)),
        Sample(tokens: 290, queryCount: 200, attention: Attention(scale: 2, logitSoftCap: 3), kvHeads: 1),
        Sample(tokens: 290, queryCount: 200, attention: Attention(sinkLogits: [2, -1, 0, 5, -.infinity, 1])),
    ]

    @Test(arguments: samples)
    func agrees(_ sample: Sample) throws {
        let (output, sums, plain) = try sample.run(threads: 2)
        for (number, other) in zip(output, plain) { #expect(abs(number - other) < 1e-5 * (1 + abs(other))) }
        let expected = try sample.expected()
        #expect(sums.map(\.count) == expected.map(\.count))
        for (found, wanted) in zip(sums.joined(), expected.joined()) {
            #expect(abs(found - wanted) < 1e-5 * (1 + wanted))
        }
        // Every query gives one in all, its sink included.
        guard sample.attention.sinkLogits == nil else { return }
        let total = Double(sample.queryCount * sample.group)
        for list in sums { #expect(abs(list.reduce(0, +) - total) < 1e-4 * total) }
    }

    @Test("whatever the number of threads, to the bit", arguments: samples)
    func threads(_ sample: Sample) throws {
        let one = try sample.run(threads: 1)
        for threads in 2...3 {
            let more = try sample.run(threads: threads)
            #expect(one.sums == more.sums && one.output == more.output)
        }
    }

    @Test func noQueries() throws {
        let (output, sums, _) = try Sample(tokens: 5, queryCount: 0).run(threads: 1)
        #expect(output.isEmpty && sums.isEmpty)
    }
}
