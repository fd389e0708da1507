public import CachePacking

extension TransformerDecoder {
    /// Tokens with which a cache and a prompt begin alike.
    public static func sharedTokens(of cache: CompressedCache, with prompt: [Int32]) -> Int {
        zip(cache.tokens ?? [], prompt).prefix { $0 == $1 }.count
    }

    /// Why a cache of the model can be reused whole only, or nil if it may be cut to any prefix.
    public func wholeOnlyReason(of cache: CompressedCache) -> String? {
        cache.wholeOnlyReason ?? lengthReason(of: cache)
    }

    /// Up to how many tokens a text's keys do not depend on its length; nil if they never do.
    private var lengthIndependentTokens: Int? {
        let configuration = model.configuration
        return [configuration.rotary, configuration.localRotary].compactMap { $0?.lengthIndependentTokens }.min()
    }

    /// Why a longer text that begins with all of a cache's has other keys, or nil.
    public func obsoleteReason(of cache: CompressedCache, for prompt: [Int32]) -> String? {
        guard let limit = lengthIndependentTokens, cache.tokenCount <= limit, prompt.count > limit else { return nil }
        return "beyond \(limit) tokens the model turns all keys by the text's length"
    }

    /// Why a shorter text that begins alike has other keys, or nil.
    private func lengthReason(of cache: CompressedCache) -> String? {
        guard let limit = lengthIndependentTokens, cache.tokenCount > limit else { return nil }
        return
            "its keys are turned for a text of \(cache.tokenCount) tokens, and beyond \(limit) the model turns them by "
            + "the text's length"
    }

    /// Tokens of a prompt that need not be computed: those with which it and the cache begin.
    ///
    /// The prompt's last token is computed in any case, for its logits. Where only a few tokens are shared, such as the
    /// one that begins every text, none are reused: what follows would gain nothing and be compressed for another text.
    /// A cache that can't be cut (`wholeOnlyReason(of:)`) is reused whole or not at all: all tokens if the prompt ends
    /// with it, too, whose last token is then computed again from what the cache holds (`repeatLastToken(of:)`), or, where
    /// only the text's length forbids to cut it, is cut off and computed for the same length.
    /// Nothing is reused for a prompt so long that its keys are turned otherwise than the cache's
    /// (`obsoleteReason(of:for:)`); one that was long enough already goes on as it is, as in `transformers`.
    public func reusableTokens(of cache: CompressedCache, for prompt: [Int32]) -> Int {
        let shared = Self.sharedTokens(of: cache, with: prompt)
        guard shared >= min(cache.shape.blockLength, cache.tokenCount) else { return 0 }
        if obsoleteReason(of: cache, for: prompt) != nil { return 0 }
        let isWhole = shared == cache.tokenCount
        let reusable = min(shared, prompt.count - 1)
        if isWhole && reusable == shared { return reusable }
        if cache.wholeOnlyReason != nil { return isWhole && canRepeatLastToken(of: cache) ? shared : 0 }
        return isWhole || lengthReason(of: cache) == nil ? reusable : 0
    }
}
