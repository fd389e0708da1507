internal import KVCacheModel
internal import LlamaDecoder

extension KVCache {
    /// The first tokens with their last queries, of those that came along, as the decoder's prefill holds them.
    ///
    /// - Parameters:
    ///   - count: tokens to keep, at least one.
    ///   - queryWindow: how many of their queries, at the most.
    ///   - configuration: the model's, which tells what layers with a sliding window hold.
    func prefix(
        _ count: Int,
        queryWindow: Int,
        of configuration: ModelConfiguration
    ) throws(KVCacheError) -> KVCache {
        precondition((1...tokenCount).contains(count), "a prefix has one token at least")
        return try KVCache(
            layers: layers.enumerated().map { index, layer in
                let held = configuration.heldTokens(ofLayer: index, tokenCount: count)
                return KVCacheLayer(
                    keys: layer.keys[tokens: held],
                    values: layer.values[tokens: held],
                    held: held.count < count ? .last : .all,
                    queries: layer.queries.flatMap { queries in
                        let end = queries.tokens - (tokenCount - count)
                        return end > 0 ? queries[tokens: max(end - queryWindow, 0)..<end] : nil
                    }
                )
            },
            tokenCount: count,
            tokens: tokens.map { Array($0.prefix(count)) },
            metadata: metadata
        )
    }
}
