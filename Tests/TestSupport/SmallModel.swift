package import ThinkCompress

/// Small models whose layers differ, and don't all hold all tokens: seeded.
package enum SmallModel: Sendable {
    /// As Gemma 3 has them: five layers that hold a sliding window, and one of other heads and dimension that holds all.
    case gemma3
    /// Layers with state alone between others, as hybrid models have them; one of the others holds listed tokens and
    /// has state, too.
    case hybrid

    package static let slidingWindow = 64
    /// Tokens that the hybrid's last layer lists, and how many of them are the cache's first.
    package static let (listedTokens, firstTokens) = (330, 8)
    /// Queries of each layer that has keys.
    private static let window = 8

    package var tokenCount: Int { self == .gemma3 ? 300 : 400 }

    /// The cache of a prompt, float16.
    package func cache() throws -> KVCache {
        var generator = SplitMix64(seed: 1)
        func layer(
            _ kvHeads: Int,
            _ keys: Int,
            _ values: Int,
            rows: Int,
            _ held: HeldTokens,
            _ state: [LayerState] = []
        )
            throws -> KVCacheLayer
        {
            let geometry = try LayerGeometry(
                queryHeads: 4,
                kvHeads: kvHeads,
                keyDimension: keys,
                valueDimension: values
            )
            let rows = KVCacheLayer.random(
                geometry,
                elementType: .float16,
                rows: rows,
                held: held,
                using: &generator
            )
            let queries = KVTensor.random(
                elementType: .float16,
                heads: 4,
                tokens: Self.window,
                headDimension: keys,
                using: &generator
            )
            return KVCacheLayer(keys: rows.keys, values: rows.values, held: held, queries: queries, state: state)
        }
        func state(_ name: String, _ count: Int) -> LayerState {
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
            return LayerState(name: name, bytes: SharedBytes(bytes))
        }
        let layers: [KVCacheLayer]
        switch self {
        case .gemma3:
            let sliding = try (0..<5).map { _ in try layer(2, 16, 16, rows: Self.slidingWindow, .last) }
            layers = sliding + [try layer(1, 32, 32, rows: tokenCount, .all)]
        case .hybrid:
            let lists = HeldTokens.random(
                kvHeads: 2,
                rows: Self.listedTokens,
                tokenCount: tokenCount,
                sinks: Self.firstTokens,
                using: &generator
            )
            layers = [
                KVCacheLayer(elementType: .float16, state: [state("conv", 77), state("recurrent", 130)]),
                try layer(2, 24, 12, rows: tokenCount, .all),
                KVCacheLayer(elementType: .float16, state: [state("recurrent", 130)]),
                try layer(2, 16, 16, rows: Self.listedTokens, lists, [state("sums", 5)]),
            ]
        }
        return try KVCache(
            layers: layers,
            tokenCount: tokenCount,
            tokens: (0..<Int32(tokenCount)).map { $0 * 7 % 1000 },
            metadata: ["model.id": "\(self)"]
        )
    }
}
