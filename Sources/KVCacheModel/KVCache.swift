/// One layer of a full-precision cache, keys after rotary embedding.
public struct KVCacheLayer: Sendable {
    /// `[kvHeads, tokens, headDimension]`, as are the values.
    public let keys: KVTensor
    public let values: KVTensor
    /// The prompt's last queries, after rotary embedding: `[queryHeads, window, headDimension]`.
    public let queries: KVTensor?
    /// The query profile: the mean squared query per KV head and channel, `kvHeads * headDimension` numbers.
    public let profile: [Float]?

    public init(keys: KVTensor, values: KVTensor, queries: KVTensor? = nil, profile: [Float]? = nil) {
        self.keys = keys
        self.values = values
        self.queries = queries
        self.profile = profile
    }
}

/// A full-precision cache as an engine made it, with what tells to which model and prompt it belongs.
public struct KVCache: Sendable {
    public let geometry: CacheGeometry
    public let elementType: ElementType
    public let tokenCount: Int
    public let layers: [KVCacheLayer]
    /// Token ids, one per token.
    public let tokens: [Int32]?
    /// Positions, one per token; nil where token t has position t.
    public let positions: [Int32]?
    /// Text that travels with the cache; Formats/snapshot.md, "METADATA", lists the keys in use.
    public let metadata: [String: String]

    /// A cache whose parts fit each other.
    ///
    /// - Throws: `KVCacheError` if there are no layers or tokens, layers differ in shape or type, or queries, profile,
    ///   tokens or positions don't belong to the keys.
    public init(
        layers: [KVCacheLayer],
        tokens: [Int32]? = nil,
        positions: [Int32]? = nil,
        metadata: [String: String] = [:]
    ) throws(KVCacheError) {
        guard let first = layers.first else { throw KVCacheError(.emptyCache, "the cache has no layers") }
        guard first.keys.tokens > 0 else { throw KVCacheError(.emptyCache, "the cache has no tokens") }
        geometry = try CacheGeometry(
            layers: layers.count,
            queryHeads: first.queries?.heads ?? 0,
            kvHeads: first.keys.heads,
            headDimension: first.keys.headDimension
        )
        elementType = first.keys.elementType
        tokenCount = first.keys.tokens
        guard CacheGeometry.Limits.tokens.contains(tokenCount) else {
            throw KVCacheError(.invalidGeometry, "\(tokenCount) tokens are more than a cache may have")
        }
        for (index, layer) in layers.enumerated() {
            try Self.check(layer, index: index, against: first)
        }
        for (name, numbers) in [("tokens", tokens), ("positions", positions)] {
            guard let numbers, numbers.count != tokenCount else { continue }
            throw KVCacheError(.invalidTokens, "\(numbers.count) \(name) for a cache of \(tokenCount) tokens")
        }
        self.layers = layers
        self.tokens = tokens
        self.positions = positions
        self.metadata = metadata
    }

    /// The same cache with a query profile for every layer, which is used in place of its own profile and queries.
    ///
    /// - Parameter profile: for each layer `kvHeads * headDimension` mean squared queries.
    /// - Throws: `KVCacheError` if the profile is not one of such a cache.
    public func withProfile(_ profile: [[Float]]) throws(KVCacheError) -> KVCache {
        guard profile.count == layers.count else {
            throw KVCacheError(.invalidProfile, "a query profile of \(profile.count) layers for \(layers.count)")
        }
        return try KVCache(
            layers: zip(layers, profile).map { layer, profile in
                KVCacheLayer(keys: layer.keys, values: layer.values, queries: layer.queries, profile: profile)
            },
            tokens: tokens,
            positions: positions,
            metadata: metadata
        )
    }

    private static func check(_ layer: KVCacheLayer, index: Int, against first: KVCacheLayer) throws(KVCacheError) {
        for (name, tensor) in [("keys", layer.keys), ("values", layer.values)] {
            guard shape(tensor) == shape(first.keys), tensor.elementType == first.keys.elementType else {
                throw KVCacheError(
                    .raggedLayers,
                    layer: index,
                    "\(name) are \(describe(tensor)), the keys of layer 0 are \(describe(first.keys))"
                )
            }
        }
        guard (layer.queries == nil) == (first.queries == nil) else {
            throw KVCacheError(.invalidQueries, layer: index, "some layers have queries and others have none")
        }
        if let queries = layer.queries {
            guard queries.heads == first.queries?.heads, queries.heads % layer.keys.heads == 0,
                queries.headDimension == layer.keys.headDimension
            else {
                throw KVCacheError(
                    .invalidQueries,
                    layer: index,
                    "queries are \(describe(queries)): the query heads must be the same in all layers and a multiple of "
                        + "the \(layer.keys.heads) KV heads, the head dimension \(layer.keys.headDimension)"
                )
            }
            guard queries.tokens > 0, queries.tokens <= layer.keys.tokens else {
                throw KVCacheError(
                    .invalidQueries,
                    layer: index,
                    "an observation window of \(queries.tokens) queries for \(layer.keys.tokens) tokens"
                )
            }
        }
        guard (layer.profile == nil) == (first.profile == nil) else {
            throw KVCacheError(.invalidProfile, layer: index, "some layers have a query profile and others have none")
        }
        if let profile = layer.profile {
            guard profile.count == layer.keys.heads * layer.keys.headDimension else {
                throw KVCacheError(
                    .invalidProfile,
                    layer: index,
                    "a query profile of \(profile.count) numbers for \(layer.keys.heads) KV heads of dimension "
                        + "\(layer.keys.headDimension)"
                )
            }
            guard profile.allSatisfy({ $0.isFinite && $0 >= 0 }) else {
                throw KVCacheError(.invalidProfile, layer: index, "the query profile has numbers below 0 or not finite")
            }
        }
    }

    private static func shape(_ tensor: KVTensor) -> [Int] { [tensor.heads, tensor.tokens, tensor.headDimension] }

    private static func describe(_ tensor: KVTensor) -> String { "\(tensor.elementType.name) \(shape(tensor))" }
}
