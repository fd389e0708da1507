import BenchmarkSupport
import LlamaDecoder
import ThinkCompress

/// Tokens one by one after a prompt's compressed cache, each with its logits.
final class DecodeWorkload: Workload {
    private let decoder: TransformerDecoder
    private let cache: CompressedCache
    /// What follows the prompt: a token that isn't measured, then those that are.
    private let following: [Int32]

    init(served: ServedModel, recipe: Recipe, tokens: Int, steps: Int, threads: Int) async throws {
        following = try served.tokens(steps + 1, from: tokens)
        // A prompt that only prepares is read by all processors.
        let reader = TransformerDecoder(model: served.model)
        cache = try await reader.prefill(try served.tokens(tokens), recipe: recipe).cache
        decoder = TransformerDecoder(model: served.model, threadCount: threads)
    }

    func run() throws -> RoundResult {
        var grown = cache
        // Not measured: waking the workers, and the copy that a cache with two owners becomes.
        _ = try decoder.extend(&grown, with: Array(following[..<1]))
        let start = ContinuousClock.now
        for token in following.dropFirst() { _ = try decoder.extend(&grown, with: [token]) }
        return RoundResult(
            microseconds: (ContinuousClock.now - start).inSeconds * 1e6 / Double(following.count - 1),
            byteCount: cache.blockByteCount + cache.fullPrecisionByteCount
        )
    }
}
