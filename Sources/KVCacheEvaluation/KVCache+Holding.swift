internal import KVCacheModel
internal import LlamaDecoder

extension KVCache {
    /// The cache as the decoder's prefill holds it, with some of its last queries.
    ///
    /// - Parameters:
    ///   - configuration: the model's, which tells what layers with a sliding window hold.
    ///   - count: queries at the most.
    func held(by configuration: ModelConfiguration, lastQueries count: Int) throws(KVCacheError) -> KVCache {
        try KVCache(
            layers: layers.enumerated().map { index, layer in
                let held = configuration.heldTokens(ofLayer: index, tokenCount: tokenCount)
                return KVCacheLayer(
                    keys: layer.keys[tokens: held],
                    values: layer.values[tokens: held],
                    held: held.count < tokenCount ? .last : .all,
                    queries: count > 0 ? layer.queries.map { $0[tokens: max($0.tokens - count, 0)..<$0.tokens] } : nil,
                    accumulatedAttention: layer.accumulatedAttention.map { $0.map { Array($0[held]) } },
                    outputWeights: layer.outputWeights
                )
            },
            tokenCount: tokenCount,
            tokens: tokens,
            metadata: metadata
        )
    }
}
