/// The shape of a cache, apart from its tokens: that of each of its layers.
public struct CacheGeometry: Sendable, Equatable {
    /// The largest values that a snapshot can say: Formats/snapshot.md, "Limits".
    public enum Limits: Sendable {
        public static let layers = 1...4096
        public static let kvHeads = 1...1024
        public static let queryHeads = 0...65536
        public static let keyDimension = 1...1024
        public static let valueDimension = 0...1024
        public static let tokens = 1...Int(Int32.max)
    }

    public let layers: [LayerGeometry]

    /// - Throws: `KVCacheError` if there are too many layers, or none.
    public init(_ layers: [LayerGeometry]) throws(KVCacheError) {
        try Limits.layers.check(layers.count, "the number of layers")
        self.layers = layers
    }

    /// The shape of a cache all of whose layers are alike, and their keys and values too.
    ///
    /// - Parameters:
    ///   - layers: how many there are.
    ///   - queryHeads: query heads of a layer, or 0 if unknown.
    ///   - kvHeads: KV heads of a layer.
    ///   - headDimension: numbers of a token's key, and of its value, in a KV head.
    /// - Throws: `KVCacheError` if a number is outside of `Limits`, or the query heads are no multiple of the KV heads.
    public init(layers: Int, queryHeads: Int = 0, kvHeads: Int, headDimension: Int) throws(KVCacheError) {
        try Limits.layers.check(layers, "the number of layers")
        let layer = try LayerGeometry(
            queryHeads: queryHeads,
            kvHeads: kvHeads,
            keyDimension: headDimension,
            valueDimension: headDimension
        )
        try self.init([LayerGeometry](repeating: layer, count: layers))
    }

    /// The shape that all layers have; nil if they differ.
    public var commonLayer: LayerGeometry? { layers.allSatisfy { $0 == layers[0] } ? layers[0] : nil }
}

extension ClosedRange<Int> {
    /// - Throws: `KVCacheError` if the number is outside.
    func check(_ value: Int, _ name: String) throws(KVCacheError) {
        guard !contains(value) else { return }
        throw KVCacheError(.invalidGeometry, "\(name) is \(value), must be \(lowerBound)...\(upperBound)")
    }
}
