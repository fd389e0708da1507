/// The shape of one layer's keys and values, apart from its tokens.
public struct LayerGeometry: Sendable, Hashable {
    public let kvHeads: Int
    /// Query heads, or 0 if unknown; a multiple of `kvHeads`.
    public let queryHeads: Int
    /// Numbers of a token's key in a KV head.
    public let keyDimension: Int
    /// Numbers of a token's value in a KV head; 0 in layers without values, as in latent attention.
    public let valueDimension: Int

    /// The shape of a layer that has no keys and values, such as one with a recurrent state.
    public static let none = LayerGeometry()

    private init() {
        (kvHeads, queryHeads, keyDimension, valueDimension) = (0, 0, 0, 0)
    }

    /// - Throws: `KVCacheError` if a number is outside of `CacheGeometry.Limits`, or the query heads are no multiple of
    ///   the KV heads.
    public init(queryHeads: Int = 0, kvHeads: Int, keyDimension: Int, valueDimension: Int) throws(KVCacheError) {
        typealias Limits = CacheGeometry.Limits
        try Limits.kvHeads.check(kvHeads, "the number of KV heads")
        try Limits.queryHeads.check(queryHeads, "the number of query heads")
        try Limits.keyDimension.check(keyDimension, "the key dimension")
        try Limits.valueDimension.check(valueDimension, "the value dimension")
        guard queryHeads % kvHeads == 0 else {
            throw KVCacheError(.invalidGeometry, "\(queryHeads) query heads can't share \(kvHeads) KV heads evenly")
        }
        self.kvHeads = kvHeads
        self.queryHeads = queryHeads
        self.keyDimension = keyDimension
        self.valueDimension = valueDimension
    }

    /// Whether the layer has no keys and values at all.
    public var isEmpty: Bool { kvHeads == 0 }

    /// Numbers of a token's key or value in a KV head.
    public func dimension(_ part: CachePart) -> Int {
        switch part {
        case .keys: keyDimension
        case .values: valueDimension
        }
    }

    /// Numbers of a token in all KV heads, keys and values together.
    public var valuesPerToken: Int { kvHeads * (keyDimension + valueDimension) }
}
