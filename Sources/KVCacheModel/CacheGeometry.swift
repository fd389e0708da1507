/// The shape of a cache, apart from its number of tokens.
public struct CacheGeometry: Sendable, Equatable {
    /// The largest values that a snapshot can say: Formats/snapshot.md, "Limits".
    public enum Limits: Sendable {
        public static let layers = 1...4096
        public static let kvHeads = 1...1024
        public static let queryHeads = 0...65536
        public static let headDimension = 1...1024
        public static let tokens = 1...Int(Int32.max)
    }

    public let layers: Int
    /// Query heads of a layer, or 0 if unknown; a multiple of `kvHeads`.
    public let queryHeads: Int
    public let kvHeads: Int
    public let headDimension: Int

    /// - Throws: `KVCacheError` if a number is outside of `Limits`, or the query heads are no multiple of the KV heads.
    public init(layers: Int, queryHeads: Int = 0, kvHeads: Int, headDimension: Int) throws(KVCacheError) {
        func check(_ value: Int, _ name: String, _ range: ClosedRange<Int>) throws(KVCacheError) {
            guard range.contains(value) else {
                throw KVCacheError(
                    .invalidGeometry,
                    "\(name) is \(value), must be \(range.lowerBound)...\(range.upperBound)"
                )
            }
        }
        try check(layers, "the number of layers", Limits.layers)
        try check(kvHeads, "the number of KV heads", Limits.kvHeads)
        try check(queryHeads, "the number of query heads", Limits.queryHeads)
        try check(headDimension, "the head dimension", Limits.headDimension)
        guard queryHeads % kvHeads == 0 else {
            throw KVCacheError(.invalidGeometry, "\(queryHeads) query heads can't share \(kvHeads) KV heads evenly")
        }
        self.layers = layers
        self.queryHeads = queryHeads
        self.kvHeads = kvHeads
        self.headDimension = headDimension
    }

    /// Numbers that a cache of so many tokens holds, keys and values together.
    public func valueCount(tokens: Int) -> Int { 2 * layers * kvHeads * headDimension * tokens }
}
