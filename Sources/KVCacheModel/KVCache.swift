/// A full-precision cache as an engine made it, with what tells to which model and prompt it belongs.
public struct KVCache: Sendable {
    public let geometry: CacheGeometry
    public let elementType: ElementType
    /// Tokens of the cache; a layer may hold fewer.
    public let tokenCount: Int
    public let layers: [KVCacheLayer]
    /// Token ids, one per token.
    public let tokens: [Int32]?
    /// Positions, one per token; nil where token t has position t.
    public let positions: [Int32]?
    /// Text that travels with the cache; Formats/snapshot.md, "METADATA", lists the keys in use.
    public let metadata: [String: String]

    /// Entries of metadata that a snapshot can say: Formats/snapshot.md, "METADATA".
    package static let maximumMetadataEntries = 1024

    /// A cache whose parts fit each other.
    ///
    /// - Parameter tokenCount: tokens of the cache; nil for as many as there are ids or positions, or else rows in the
    ///   longest layer.
    /// - Throws: `KVCacheError` if there are no layers or tokens, a layer's parts don't belong to each other or hold
    ///   other tokens than it says, or there are not as many ids or positions as tokens.
    public init(
        layers: [KVCacheLayer],
        tokenCount: Int? = nil,
        tokens: [Int32]? = nil,
        positions: [Int32]? = nil,
        metadata: [String: String] = [:]
    ) throws(KVCacheError) {
        guard let first = layers.first else { throw KVCacheError(.emptyCache, "the cache has no layers") }
        let rows = layers.reduce(0) { max($0, $1.keys.tokens) }
        let count = tokenCount ?? tokens?.count ?? positions?.count ?? rows
        guard count > 0 else { throw KVCacheError(.emptyCache, "the cache has no tokens") }
        guard CacheGeometry.Limits.tokens.contains(count) else {
            throw KVCacheError(.invalidGeometry, "\(count) tokens are more than a cache may have")
        }
        var shapes: [LayerGeometry] = []
        for (index, layer) in layers.enumerated() {
            shapes.append(
                try layer.checkedGeometry(index: index, elementType: first.keys.elementType, tokenCount: count)
            )
        }
        if let reference = layers.first(where: { !$0.isEmpty }) {
            for (index, layer) in layers.enumerated() where !layer.isEmpty {
                guard (layer.queries == nil) == (reference.queries == nil) else {
                    throw KVCacheError(
                        .invalidQueries,
                        layer: index,
                        "some layers have queries and others have none"
                    )
                }
                guard (layer.profile == nil) == (reference.profile == nil) else {
                    throw KVCacheError(
                        .invalidProfile,
                        layer: index,
                        "some layers have a query profile and others have none"
                    )
                }
                guard (layer.profile?.sensitivity == nil) == (reference.profile?.sensitivity == nil) else {
                    throw KVCacheError(
                        .invalidProfile,
                        layer: index,
                        "some layers have sensitivities and others have none"
                    )
                }
            }
        }
        for (name, numbers) in [("tokens", tokens), ("positions", positions)] {
            guard let numbers, numbers.count != count else { continue }
            throw KVCacheError(.invalidTokens, "\(numbers.count) \(name) for a cache of \(count) tokens")
        }
        geometry = try CacheGeometry(shapes)
        elementType = first.keys.elementType
        self.tokenCount = count
        self.layers = layers
        self.tokens = tokens
        self.positions = positions
        self.metadata = metadata
    }

    /// The same cache with a profile for every layer, which is used in place of its own profile and queries.
    ///
    /// - Throws: `KVCacheError` if the profile is not one of such a cache.
    public func withProfile(_ profile: [LayerProfile]) throws(KVCacheError) -> KVCache {
        guard profile.count == layers.count else {
            throw KVCacheError(.invalidProfile, "a profile of \(profile.count) layers for \(layers.count)")
        }
        return try KVCache(
            layers: zip(layers, profile).map { $0.withProfile($0.isEmpty && $1.isEmpty ? nil : $1) },
            tokenCount: tokenCount,
            tokens: tokens,
            positions: positions,
            metadata: metadata
        )
    }

    /// Numbers that the layers hold, keys and values together.
    public var valueCount: Int {
        zip(layers, geometry.layers).reduce(0) { $0 + $1.0.keys.tokens * $1.1.valuesPerToken }
    }
}

extension KVCacheLayer {
    /// The layer's shape, after checking that its parts belong to each other and to a cache.
    package func checkedGeometry(
        index: Int,
        elementType: ElementType,
        tokenCount: Int
    ) throws(KVCacheError) -> LayerGeometry {
        func error(_ code: KVCacheError.Code, _ message: String) -> KVCacheError {
            KVCacheError(code, layer: index, message)
        }
        let geometry: LayerGeometry
        do {
            geometry = try self.geometry()
        } catch {
            throw KVCacheError(error, layer: index)
        }
        guard keys.elementType == elementType else {
            throw error(.raggedLayers, "keys are \(keys.shapeText), the cache is \(elementType.name)")
        }
        guard Set(state.map(\.name)).count == state.count else {
            throw error(.invalidState, "two of its states have the same name")
        }
        guard !isEmpty else {
            guard queries == nil, profile == nil, outputWeights == nil, accumulatedAttention == nil else {
                throw error(
                    .invalidQueries,
                    "queries, accumulated attention, a query profile or output weights for a layer without keys"
                )
            }
            return geometry
        }
        guard keys.tokens > 0 else { throw error(.emptyCache, "it has KV heads and no tokens") }
        if let fault = held.fault(kvHeads: keys.heads, rows: keys.tokens, tokenCount: tokenCount) {
            throw error(.invalidTokens, "it holds \(fault)")
        }
        if let queries {
            guard queries.heads > 0 else {
                throw error(.invalidQueries, "queries are \(queries.shapeText), of no query head")
            }
            guard queries.headDimension == keys.headDimension else {
                throw error(
                    .invalidQueries,
                    "queries are \(queries.shapeText), the keys have the dimension \(keys.headDimension)"
                )
            }
            guard (1...tokenCount).contains(queries.tokens) else {
                throw error(
                    .invalidQueries,
                    "an observation window of \(queries.tokens) queries for \(tokenCount) tokens"
                )
            }
        }
        if let accumulatedAttention {
            guard accumulatedAttention.map(\.count) == [Int](repeating: keys.tokens, count: keys.heads) else {
                throw error(
                    .raggedLayers,
                    "accumulated attention must have a number for each of \(keys.tokens) rows of \(keys.heads) KV heads"
                )
            }
            guard accumulatedAttention.allSatisfy({ $0.allSatisfy { $0.isFinite && $0 >= 0 } }) else {
                throw error(.invalidQueries, "accumulated attention with numbers below 0 or not finite")
            }
        }
        if let profile {
            let fault = profile.fault(
                kvHeads: keys.heads,
                keyDimension: keys.headDimension,
                valueDimension: values.headDimension
            )
            if let fault { throw error(.invalidProfile, fault) }
        }
        if let outputWeights {
            let fault = LayerProfile.fault(
                LayerProfile.outputWeightsName,
                outputWeights,
                kvHeads: keys.heads,
                dimension: values.headDimension
            )
            if let fault { throw error(.invalidProfile, fault) }
        }
        return geometry
    }
}
