public import CachePacking
public import ComputeRuntime
public import KVCacheModel

/// Attention of new queries over a compressed cache: `softmax(q K^T) V`, without decompressing it as a whole.
///
/// Queries share KV heads in groups (query head h uses KV head `h / group`), and each sees the tokens up to its own.
/// Scores of compressed tokens are taken over the kept key channels; where the recipe restores means, pruned channels
/// add what their means give. Softmax runs tile by tile (online softmax).
public struct Attention: Sendable, Equatable {
    /// How exactly queries and probabilities meet quantized keys and values.
    public enum Precision: Sendable, Equatable {
        /// `fast` for KV heads whose codes hide what it adds, by an error ten times as large: those with values of 2 bits,
        /// with 3 bits of keys and of values, or with soft-pruned keys of 2.5 and values of 3. `precise` for the others.
        case automatic
        /// 8 bits each: the output's relative error is some 2 %, far below that of 2-bit quantization.
        case fast
        /// 15 and 16 bits: relative error below 5e-4.
        case precise
    }

    /// What `q · k` is multiplied by; nil for `1 / sqrt(keyDimension)`.
    public var scale: Float?
    /// How many tokens a query sees, its own included; nil for all.
    public var slidingWindow: Int?
    /// Scores are bent to `cap * tanh(score / cap)`; nil for none.
    public var logitSoftCap: Float?
    /// A score for each query head that takes its part of the softmax and has no value, as models with learned attention
    /// sinks have it; it is not scaled or capped, and -infinity takes nothing. Nil for none.
    public var sinkLogits: [Float]?
    public var precision: Precision

    public init(
        scale: Float? = nil,
        slidingWindow: Int? = nil,
        logitSoftCap: Float? = nil,
        sinkLogits: [Float]? = nil,
        precision: Precision = .automatic
    ) {
        self.scale = scale
        self.slidingWindow = slidingWindow
        self.logitSoftCap = logitSoftCap
        self.sinkLogits = sinkLogits
        self.precision = precision
    }

    /// Attends over a layer's blocks and residual window, and over tokens that follow them.
    ///
    /// The queries belong to the newest tokens: the last one to the last of `newer`, or of the layer if there is none.
    ///
    /// - Parameters:
    ///   - queries: `[queryHeads, queries, keyDimension]` after RoPE, of any element type; `queryHeads` is a multiple
    ///     of the layer's KV heads.
    ///   - layer: the cache.
    ///   - newer: keys and values `[kvHeads, tokens, dimension]` of tokens after the layer's, in full precision.
    ///   - workers: the threads to work on.
    ///   - output: receives `[queries, queryHeads, valueDimension]`, zeros for a query that sees no token.
    /// - Throws: `CodecError` naming the shape, or the option, that doesn't fit, or the memory that can't be had.
    public func attend(
        _ queries: KVTensor,
        over layer: CompressedLayer,
        followedBy newer: KVCacheLayer? = nil,
        using workers: WorkerThreads,
        into output: inout MutableSpan<Float>
    ) throws(CodecError) {
        _ = try attend(queries, over: layer, followedBy: newer, using: workers, into: &output, accumulates: false)
    }

    /// Attends over tokens in full precision, and adds up the attention that each of them gets: H2O's accumulated
    /// attention scores (arXiv 2306.14048, section 4).
    ///
    /// - Parameters:
    ///   - queries: as for a cache.
    ///   - layer: one without rows, of the tokens' shape; it says how many tokens come before them.
    ///   - tokens: keys and values `[kvHeads, tokens, dimension]`.
    ///   - workers: the threads to work on; the result is the same for any number of them.
    ///   - output: as for a cache.
    /// - Returns: for each KV head and token the sum of its softmax weights, over the queries and the query heads of the
    ///   group; an empty array without queries.
    /// - Throws: as for a cache.
    public func attendAccumulating(
        _ queries: KVTensor,
        over layer: CompressedLayer,
        followedBy tokens: KVCacheLayer,
        using workers: WorkerThreads,
        into output: inout MutableSpan<Float>
    ) throws(CodecError) -> [[Double]] {
        precondition(layer.extent.rowCount == 0, "only attention to tokens in full precision is added up")
        return try attend(queries, over: layer, followedBy: tokens, using: workers, into: &output, accumulates: true)
    }

    /// - Returns: the sums, if they are asked for and there are queries.
    private func attend(
        _ queries: KVTensor,
        over layer: CompressedLayer,
        followedBy newer: KVCacheLayer?,
        using workers: WorkerThreads,
        into output: inout MutableSpan<Float>,
        accumulates: Bool
    ) throws(CodecError) -> [[Double]] {
        try check(queries, layer: layer, newer: newer, outputCount: output.count)
        return unsafe try output.withUnsafeMutableBufferPointer { (pointer) throws(CodecError) in
            guard let base = pointer.baseAddress, queries.tokens > 0 else { return [] }
            let step = unsafe try AttentionStep(
                attention: self,
                queries: queries,
                layer: layer,
                newer: newer,
                output: base,
                accumulates: accumulates
            )
            try step.run(on: workers)
            return step.sums
        }
    }

    private func check(
        _ queries: KVTensor,
        layer: CompressedLayer,
        newer: KVCacheLayer?,
        outputCount: Int
    ) throws(CodecError) {
        func require(_ condition: Bool, _ message: @autoclosure () -> String) throws(CodecError) {
            if !condition { throw CodecError(.shapeMismatch, layer: layer.index, message()) }
        }
        let geometry = layer.geometry
        try require(geometry.valueDimension > 0, "the layer has no values to attend to")
        try require(
            queries.headDimension == geometry.keyDimension,
            "queries of dimension \(queries.headDimension) for keys of \(geometry.keyDimension)"
        )
        try require(
            queries.heads > 0 && queries.heads % geometry.kvHeads == 0,
            "\(queries.heads) query heads can't share \(geometry.kvHeads) KV heads evenly"
        )
        if let newer {
            for part in CachePart.allCases {
                try require(
                    newer[part].heads == geometry.kvHeads && newer[part].headDimension == geometry.dimension(part),
                    "\(part) of new tokens of \(newer[part].heads) KV heads of dimension \(newer[part].headDimension) "
                        + "for a layer of \(geometry.kvHeads) of dimension \(geometry.dimension(part))"
                )
            }
            try require(
                newer.keys.tokens == newer.values.tokens,
                "keys of \(newer.keys.tokens) new tokens and values of \(newer.values.tokens)"
            )
        }
        let tokens = layer.tokenCount + (newer?.keys.tokens ?? 0)
        try require(queries.tokens <= tokens, "\(queries.tokens) queries for \(tokens) tokens, their own included")
        try require(
            outputCount == queries.heads * queries.tokens * geometry.valueDimension,
            "room for \(outputCount) numbers, not \(queries.tokens) x \(queries.heads) x \(geometry.valueDimension)"
        )
        try require(abs(scale ?? 1) < 1e30, "the scale must be finite")
        try require((slidingWindow ?? 1) > 0, "a sliding window has at least one token")
        try require((1e-6...1e30).contains(logitSoftCap ?? 1), "a soft cap must be positive and finite")
        try require(
            sinkLogits?.count ?? queries.heads == queries.heads,
            "\(sinkLogits?.count ?? 0) sink logits for \(queries.heads) query heads"
        )
        try require((sinkLogits ?? []).allSatisfy { $0 < 1e30 }, "a sink logit must be finite, or -infinity")
    }
}
