internal import KVCacheModel

extension KVCache {
    /// The same cache with at most so many of its last queries.
    func withQueries(last count: Int) throws(KVCacheError) -> KVCache {
        try KVCache(
            layers: layers.map { layer in
                KVCacheLayer(
                    keys: layer.keys,
                    values: layer.values,
                    held: layer.held,
                    queries: count > 0 ? layer.queries.map { $0[tokens: max($0.tokens - count, 0)..<$0.tokens] } : nil
                )
            },
            tokenCount: tokenCount,
            tokens: tokens,
            metadata: metadata
        )
    }
}
