import ByteStorage
import Synchronization
import TestSupport
import Testing
import ThinkCompress

@Suite("Attention refuses what doesn't fit, and shares its threads")
struct AttentionInputTests {
    /// The error that attention over a layer of 2 KV heads of dimension 64 gives.
    private func error(
        queryHeads: Int = 8,
        queryTokens: Int = 1,
        dimension: Int = 64,
        newHeads: Int? = nil,
        outputCount: Int? = nil,
        _ attention: Attention = Attention()
    ) async throws -> CodecError? {
        let layer = try await AttentionSample(recipe: "kivi(bits=2)", tokens: 300).layer
        func tensor(_ heads: Int, _ tokens: Int) -> KVTensor {
            KVTensor(
                [Float](repeating: 1, count: heads * tokens * dimension),
                elementType: .float32,
                heads: heads,
                headDimension: dimension
            )
        }
        let newer = newHeads.map { KVCacheLayer(keys: tensor($0, 1), values: tensor($0, 1)) }
        var output = [Float](repeating: 0, count: outputCount ?? queryHeads * queryTokens * dimension)
        var span = output.mutableSpan
        do {
            try attention.attend(
                tensor(queryHeads, queryTokens),
                over: layer,
                followedBy: newer,
                using: WorkerThreads(threadCount: 1),
                into: &span
            )
            return nil
        } catch {
            return error
        }
    }

    @Test func acceptsWhatFits() async throws {
        #expect(try await error() == nil)
        #expect(try await error(queryTokens: 300) == nil)
        #expect(try await error(newHeads: 2) == nil)
    }

    @Test func namesWhatDoesNotFit() async throws {
        #expect(try await error(dimension: 32)?.message.contains("queries of dimension 32 for keys of 64") == true)
        #expect(try await error(queryHeads: 3)?.message.contains("3 query heads") == true)
        #expect(try await error(queryTokens: 301)?.message.contains("301 queries for 300 tokens") == true)
        #expect(try await error(newHeads: 4)?.message.contains("new tokens of 4 KV heads") == true)
        #expect(try await error(outputCount: 7)?.message.contains("room for 7 numbers") == true)
        #expect(try await error(outputCount: 7)?.code == .shapeMismatch)
    }

    @Test(arguments: [
        Attention(scale: .nan), Attention(scale: .infinity), Attention(slidingWindow: 0),
        Attention(sinkLogits: [1]), Attention(sinkLogits: [Float](repeating: .nan, count: 8)),
        Attention(sinkLogits: [Float](repeating: .infinity, count: 8)),
        Attention(sinkLogits: [Float](repeating: 3e38, count: 8)),
        Attention(logitSoftCap: 0), Attention(logitSoftCap: -1), Attention(logitSoftCap: .nan),
    ])
    func refusesOptions(attention: Attention) async throws {
        #expect(try await error(attention)?.code == .shapeMismatch)
    }

    @Test("steps that share workers give the same as alone, however threads sleep and wake")
    func sharedWorkers() async throws {
        let sample = try await AttentionSample(recipe: "kivi(bits=2,residual=32)", tokens: 600)
        let alone = try sample.output(Attention(precision: .precise), threads: 3)
        let workers = WorkerThreads(threadCount: 3, spinning: .zero)
        try await withThrowingTaskGroup(of: [Float].self) { group in
            for _ in 0..<6 {
                group.addTask {
                    workers.wake()
                    var output = [Float](repeating: 0, count: alone.count)
                    var span = output.mutableSpan
                    for _ in 0..<20 {
                        try Attention(precision: .precise).attend(
                            sample.queries,
                            over: sample.layer,
                            using: workers,
                            into: &span
                        )
                    }
                    return output
                }
            }
            for try await output in group { #expect(output == alone) }
        }
    }

    @Test("memory that can't be had is an error, after which the workers work on", arguments: [1, 3])
    func noMemory(threads: Int) throws {
        let workers = WorkerThreads(threadCount: threads)
        #expect(workers.threadCount == threads)
        let stride = 1 << 56
        #expect(throws: MemoryError(byteCount: stride * threads)) {
            try workers.run(scratchBytes: stride) { _, _ in Issue.record("nothing must run") }
        }
        let calls = Mutex(0)
        try workers.run(scratchBytes: 64) { _, _ in calls.withLock { $0 += 1 } }
        workers.run { _ in calls.withLock { $0 += 1 } }
        #expect(calls.withLock { $0 } == 2 * threads)
    }
}
