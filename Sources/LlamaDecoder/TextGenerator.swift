public import CachePacking
public import ComputeRuntime
public import KVCacheCodecs

/// Continues a prompt token by token, from a cache of its beginning where there is one.
public struct TextGenerator: Sendable {
    public let decoder: TransformerDecoder
    public var sampler: Sampler
    /// Tokens to make at the most.
    public var maximumTokens: Int

    public init(decoder: TransformerDecoder, sampler: Sampler = Sampler(), maximumTokens: Int) {
        precondition(maximumTokens > 0, "at least one token is to be made")
        self.decoder = decoder
        self.sampler = sampler
        self.maximumTokens = maximumTokens
    }

    /// What was made, and how fast.
    public struct Result: Sendable {
        /// The new tokens, without the one that ended the text.
        public var tokens: [Int32] = []
        /// Tokens of the prompt that came from the cache.
        public let reusedTokens: Int
        /// From the start to the first token.
        public let timeToFirstToken: Duration
        /// From the first token to the last.
        public var laterTime = Duration.zero
        /// Tokens after the first per second; nil if there are none.
        public var tokensPerSecond: Double? {
            tokens.count > 1 ? Double(tokens.count - 1) / (laterTime / .seconds(1)) : nil
        }
        /// Prompt and new tokens, but for the last one unless the text was ended by the model.
        public fileprivate(set) var cache: CompressedCache
    }

    /// Continues a prompt until the model ends the text, `maximumTokens` are made, or its positions are used up.
    ///
    /// - Parameters:
    ///   - prompt: at least one token.
    ///   - cache: of the model and of any tokens: as far as the prompt begins like it, it is used and not computed; see
    ///     `TransformerDecoder.reusableTokens(of:for:)`.
    ///   - recipe: how the prompt's cache is compressed where nothing can be used.
    ///   - metadata: what the cache will say of its model where nothing can be used; see
    ///     `LlamaModel.metadata(producer:)`.
    ///   - start: when the time to the first token began.
    ///   - progress: told how much of the prompt is done.
    ///   - take: called with every token.
    /// - Throws: `ModelError`, `CodecError` or `CancellationError`, as `TransformerDecoder.prefill` and `extend`.
    public func generate(
        _ prompt: [Int32],
        from cache: CompressedCache? = nil,
        recipe: Recipe,
        metadata: [String: String] = [:],
        since start: ContinuousClock.Instant = .now,
        progress: ProgressHandler? = nil,
        take: (Int32) throws -> Void = { _ in }
    ) async throws -> Result {
        try decoder.check(prompt)
        var sampler = sampler
        var logits: [Float]
        var cache = cache
        let reused = cache.map { decoder.reusableTokens(of: $0, for: prompt) } ?? 0
        if reused > 0, var begun = cache.take() {
            if reused == prompt.count {
                logits = try decoder.repeatLastToken(of: begun)
            } else {
                try begun.truncate(to: reused)
                logits = try decoder.extend(&begun, with: Array(prompt[reused...]), progress: progress)
            }
            cache = begun
        } else {
            let prefill = try await decoder.prefill(prompt, recipe: recipe, metadata: metadata, progress: progress)
            logits = prefill.logits
            cache = prefill.cache
        }
        guard let filled = cache.take() else { preconditionFailure("the prompt has a cache") }
        var token = try sampler.choose(logits)
        let first = ContinuousClock.now
        var result = Result(reusedTokens: reused, timeToFirstToken: first - start, cache: filled)
        let configuration = decoder.model.configuration
        while !configuration.endTokens.contains(token) {
            result.tokens.append(token)
            result.laterTime = .now - first
            try take(token)
            guard result.tokens.count < maximumTokens, result.cache.tokenCount < configuration.maximumPositions else {
                break
            }
            try Task.checkCancellation()
            logits = try decoder.extend(&result.cache, with: [token])
            token = try sampler.choose(logits)
        }
        return result
    }

    /// The cache of the prompt and all tokens that were made, for more to follow.
    ///
    /// - Parameters:
    ///   - result: what `generate` returned.
    ///   - promptTokens: tokens of its prompt.
    /// - Returns: the cache; without the last token where the model has no position for it.
    /// - Throws: `ModelError` or `CodecError`, as `TransformerDecoder.extend`.
    public func completeCache(of result: Result, promptTokens: Int) throws -> CompressedCache {
        var cache = result.cache
        let missing = promptTokens + result.tokens.count - cache.tokenCount
        guard missing > 0, cache.tokenCount < decoder.model.configuration.maximumPositions else { return cache }
        _ = try decoder.extend(&cache, with: result.tokens.suffix(missing))
        return cache
    }
}
