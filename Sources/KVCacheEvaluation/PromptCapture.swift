internal import KVCacheModel

extension KVCache {
    /// The first tokens with their last queries, of those that came along.
    ///
    /// - Parameters:
    ///   - count: tokens to keep, at least one.
    ///   - queryWindow: how many of their queries, at the most.
    func prefix(_ count: Int, queryWindow: Int) throws(KVCacheError) -> KVCache {
        precondition((1...tokenCount).contains(count), "a prefix has one token at least")
        return try KVCache(
            layers: layers.map { layer in
                KVCacheLayer(
                    keys: layer.keys[tokens: 0..<count],
                    values: layer.values[tokens: 0..<count],
                    queries: layer.queries.flatMap { queries in
                        let end = queries.tokens - (tokenCount - count)
                        return end > 0 ? queries[tokens: max(end - queryWindow, 0)..<end] : nil
                    }
                )
            },
            tokens: tokens.map { Array($0.prefix(count)) },
            metadata: metadata
        )
    }
}
