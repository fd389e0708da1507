package import ByteStorage

/// One layer of a full-precision cache, keys after rotary embedding.
public struct KVCacheLayer: Sendable {
    /// `[kvHeads, rows, keyDimension]`.
    public let keys: KVTensor
    /// `[kvHeads, rows, valueDimension]`.
    public let values: KVTensor
    /// Which of the cache's tokens the rows are of.
    public let held: HeldTokens
    /// The prompt's last queries, after rotary embedding: `[queryHeads, window, keyDimension]`.
    public let queries: KVTensor?
    /// What the model's profile says of the layer, or the query profile that came with the cache.
    public let profile: LayerProfile?
    /// The attention that the rows got from all queries of the prompt: for each KV head and row the sum of its softmax
    /// weights, over the queries and the query heads of the group. Nil where it was not added up.
    public let accumulatedAttention: [[Double]]?
    /// How much the model's output projection weighs each value channel, where the model is at hand: as in
    /// `LayerProfile`, whose own are used in place of these.
    public let outputWeights: [Float]?
    /// What the layer keeps beside keys and values, by the bytes of their names, which differ.
    public let state: [LayerState]

    public init(
        keys: KVTensor,
        values: KVTensor,
        held: HeldTokens = .all,
        queries: KVTensor? = nil,
        profile: LayerProfile? = nil,
        accumulatedAttention: [[Double]]? = nil,
        outputWeights: [Float]? = nil,
        state: [LayerState] = []
    ) {
        self.keys = keys
        self.values = values
        self.held = held
        self.queries = queries
        self.profile = profile
        self.accumulatedAttention = accumulatedAttention
        self.outputWeights = outputWeights
        self.state = state.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
    }

    /// A layer without keys and values.
    public init(elementType: ElementType, state: [LayerState] = []) {
        let nothing = KVTensor.empty(elementType)
        self.init(keys: nothing, values: nothing, state: state)
    }

    /// Whether the layer has no keys and values.
    public var isEmpty: Bool { keys.heads == 0 }

    /// The same layer with a profile, which is used in place of its own profile and queries.
    public func withProfile(_ profile: LayerProfile?) -> KVCacheLayer {
        KVCacheLayer(
            keys: keys,
            values: values,
            held: held,
            queries: queries,
            profile: profile,
            accumulatedAttention: accumulatedAttention,
            outputWeights: outputWeights,
            state: state
        )
    }

    /// The layer with some of its rows, copied, and all that is not of single tokens: queries, profile and state.
    ///
    /// - Parameters:
    ///   - rows: which of each KV head, ascending, as many of each.
    ///   - tokenCount: tokens of the cache.
    package func keeping(_ rows: [[Int]], tokenCount: Int) throws(MemoryError) -> KVCacheLayer {
        let first = tokenCount - keys.tokens
        return KVCacheLayer(
            keys: try keys.keeping(rows),
            values: try values.keeping(rows),
            held: .listed(
                rows.enumerated().map { head, list in
                    list.map { UInt32(held.token(ofRow: $0, head: head, firstToken: first)) }
                }
            ),
            queries: queries,
            profile: profile,
            accumulatedAttention: accumulatedAttention.map { heads in
                zip(heads, rows).map { weights, list in list.map { weights[$0] } }
            },
            outputWeights: outputWeights,
            state: state
        )
    }

    /// The layer's shape.
    ///
    /// - Throws: `KVCacheError` if keys, values and queries can't belong together, or a number is beyond the limits.
    public func geometry() throws(KVCacheError) -> LayerGeometry {
        guard keys.heads == values.heads, keys.tokens == values.tokens, keys.elementType == values.elementType else {
            throw KVCacheError(
                .raggedLayers,
                "values are \(values.shapeText), the keys \(keys.shapeText)"
            )
        }
        guard !isEmpty else {
            guard keys.tokens == 0, keys.headDimension == 0, values.headDimension == 0, held == .all else {
                throw KVCacheError(
                    .raggedLayers,
                    "keys are \(keys.shapeText); a layer without heads has no tokens and no dimension"
                )
            }
            return .none
        }
        return try LayerGeometry(
            queryHeads: queries?.heads ?? 0,
            kvHeads: keys.heads,
            keyDimension: keys.headDimension,
            valueDimension: values.headDimension
        )
    }
}
