import Foundation
import TestSupport
import ThinkCompress

/// A compressed layer, perhaps new tokens after it, and queries of the newest tokens.
struct AttentionSample: Sendable {
    let layer: CompressedLayer
    let newer: KVCacheLayer?
    let queries: KVTensor

    init(layer: CompressedLayer, newer: KVCacheLayer? = nil, queries: KVTensor) {
        self.layer = layer
        self.newer = newer
        self.queries = queries
    }

    /// - Parameters:
    ///   - source: keys, values and queries; the queries belong to its last tokens.
    ///   - newTokens: how many of its last tokens stay out of the compressed layer.
    ///   - queryCount: how many of the last queries are asked.
    init(recipe: String, source: KVCacheLayer, newTokens: Int = 0, queryCount: Int = 1) async throws {
        let tokens = source.keys.tokens - newTokens
        // An observation window can't be longer than its cache.
        let observed = source.queries.map { $0[tokens: max($0.tokens - tokens, 0)..<$0.tokens] }
        let old = KVCacheLayer(
            keys: source.keys[tokens: 0..<tokens],
            values: source.values[tokens: 0..<tokens],
            queries: observed,
            profile: source.profile
        )
        layer = try await CompressedCache(compressing: KVCache(layers: [old]), recipe: Recipe(recipe)).layers[0]
        let end = source.keys.tokens
        newer =
            newTokens == 0
            ? nil
            : KVCacheLayer(keys: source.keys[tokens: tokens..<end], values: source.values[tokens: tokens..<end])
        guard let own = source.queries else { throw Missing.queries }
        queries = own[tokens: own.tokens - queryCount..<own.tokens]
    }

    /// Random numbers of a shape.
    init(
        recipe: String,
        tokens: Int = 700,
        newTokens: Int = 0,
        queryCount: Int = 1,
        group: Int = 4,
        kvHeads: Int = 2,
        headDimension: Int = 64,
        elementType: ElementType = .float16,
        seed: UInt64 = 1
    ) async throws {
        var maker = TestCache()
        maker.layers = 1
        maker.kvHeads = kvHeads
        maker.queryHeads = kvHeads * group
        maker.headDimension = headDimension
        maker.tokens = tokens + newTokens
        maker.seed = seed
        maker.elementType = elementType
        maker.window = min(max(queryCount, 32), maker.tokens)
        let source = try maker.makeQuickly().layers[0]
        try await self.init(recipe: recipe, source: source, newTokens: newTokens, queryCount: queryCount)
    }

    enum Missing: Error { case queries }

    /// What attention gives, `[queries, queryHeads, valueDimension]`.
    func output(_ attention: Attention, threads: Int = 2) throws -> [Float] {
        var output = [Float](repeating: .nan, count: queries.tokens * queries.heads * layer.geometry.valueDimension)
        var span = output.mutableSpan
        let workers = WorkerThreads(threadCount: threads)
        try attention.attend(queries, over: layer, followedBy: newer, using: workers, into: &span)
        return output
    }

    /// The relative error against attention in float64 over what the layer restores, in the norm over all heads and
    /// queries.
    func error(_ attention: Attention, threads: Int = 2) throws -> Double {
        let restored = try layer.decompress(rows: 0..<layer.rowCount, as: .float32)
        return try error(output(attention, threads: threads), over: restored, attention: attention)
    }

    /// The relative error against attention over other keys and values of the layer's tokens.
    func error(_ output: [Float], over older: KVCacheLayer, attention: Attention) -> Double {
        reference(over: older, attention: attention).relativeError(of: output)
    }

    /// Attention in float64 over keys and values of the layer's tokens, and the new ones.
    func reference(over older: KVCacheLayer, attention: Attention) -> ReferenceAttention {
        ReferenceAttention(
            queries,
            over: [older] + (newer.map { [$0] } ?? []),
            tokenCount: layer.tokenCount,
            attention: attention
        )
    }
}

extension ElementType {
    /// The recipe that keeps caches of this type as they are.
    var fullPrecisionRecipe: String {
        switch self {
        case .float16: "f16"
        case .bfloat16: "bf16"
        case .float32: "f32"
        }
    }
}

/// Which kernels this process runs.
enum KernelChoice {
    static let isScalar = ProcessInfo.processInfo.environment["THINK_COMPRESS_KERNELS"] == "scalar"
}
