import BenchmarkSupport
import LlamaDecoder
import ThinkCompress

/// Reading a prompt into a compressed cache.
final class PrefillWorkload: Workload {
    private let decoder: TransformerDecoder
    private let recipe: Recipe
    private let prompt: [Int32]

    init(served: ServedModel, recipe: Recipe, tokens: Int, threads: Int) async throws {
        decoder = TransformerDecoder(model: served.model, threadCount: threads)
        self.recipe = recipe
        prompt = try served.tokens(tokens)
        // Once now, so that nothing is touched for the first time in a measured round.
        _ = try await run()
    }

    func run() async throws -> RoundResult {
        decoder.workers.wake()
        let start = ContinuousClock.now
        let cache = try await decoder.prefill(prompt, recipe: recipe).cache
        return RoundResult(
            microseconds: (ContinuousClock.now - start).inSeconds * 1e6,
            byteCount: cache.blockByteCount + cache.fullPrecisionByteCount
        )
    }
}
