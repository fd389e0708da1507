public import KVCacheModel

/// A compressed cache: layers packed by their plans, and what tells to which model and prompt it belongs.
///
/// A value: copies share memory until one of them appends.
public struct CompressedCache: Sendable {
    public let geometry: CacheGeometry
    public let shape: BlockShape
    /// How the plans were made, for people and for making more caches of the same kind; nil if nobody said.
    public let recipe: RecipeRecord?
    /// The layers, from the first.
    public package(set) var layers: [CompressedLayer]
    /// Tokens of the cache; a layer may hold fewer.
    public private(set) var tokenCount: Int
    /// Token ids, one per token, as far as they are known.
    public private(set) var tokens: [Int32]?
    /// Positions, one per token; nil where token t has position t.
    public private(set) var positions: [Int32]?
    public let metadata: [String: String]
    /// The query profile of each layer, `kvHeads * keyDimension` numbers, if queries or a profile came with the cache.
    public let profile: [[Float]]?

    package init(
        geometry: CacheGeometry,
        recipe: RecipeRecord?,
        layers: [CompressedLayer],
        tokenCount: Int,
        tokens: [Int32]?,
        positions: [Int32]?,
        metadata: [String: String],
        profile: [[Float]]?
    ) {
        precondition(layers.count == geometry.layers.count, "every layer of the geometry must be there")
        precondition(layers.allSatisfy { $0.tokenCount == tokenCount }, "layers are of the same tokens")
        self.geometry = geometry
        self.recipe = recipe
        self.layers = layers
        self.tokenCount = tokenCount
        self.tokens = tokens
        self.positions = positions
        self.metadata = metadata
        self.profile = profile
        shape = layers[0].shape
    }

    /// Bytes of the blocks of all layers.
    public var blockByteCount: Int { layers.reduce(0) { $0 + $1.blockByteCount } }

    /// Bytes of sinks and residual windows of all layers.
    public var fullPrecisionByteCount: Int { layers.reduce(0) { $0 + $1.fullPrecisionByteCount } }

    /// Numbers that the layers hold, keys and values together.
    public var valueCount: Int { layers.reduce(0) { $0 + $1.rowCount * $1.geometry.valuesPerToken } }

    /// Why the cache can be reused whole only, or nil if it may be cut to any prefix.
    public var wholeOnlyReason: String? { layers.lazy.compactMap(\.wholeOnlyReason).first }

    /// Appends the same new tokens to all layers.
    ///
    /// The bytes are the same as if the tokens had been there from the start, unless a stage decides by the prompt:
    /// ThinK's mask stays as it was chosen then. On an error nothing is appended.
    ///
    /// - Parameters:
    ///   - newLayers: keys and values `[kvHeads, newTokens, dimension]` of every layer, none of layers that have none;
    ///     and the new state of layers that have one.
    ///   - newTokens: their ids, if known; without them the cache has no token ids from here on.
    ///   - newPositions: their positions; without them token t has position t.
    /// - Throws: `CodecError` if shapes or numbers don't fit.
    public mutating func append(
        _ newLayers: [KVCacheLayer],
        tokens newTokens: [Int32]? = nil,
        positions newPositions: [Int32]? = nil
    ) throws(CodecError) {
        let count = newTokens?.count ?? newLayers.reduce(0) { max($0, $1.keys.tokens) }
        guard newLayers.count == layers.count,
            zip(newLayers, layers).allSatisfy({ $0.keys.tokens == ($1.geometry.isEmpty ? 0 : count) }),
            newPositions?.count ?? count == count
        else {
            throw CodecError(.shapeMismatch, "every layer must get the same new tokens, with as many ids and positions")
        }
        guard CacheGeometry.Limits.tokens.upperBound - tokenCount >= count else {
            throw CodecError(.shapeMismatch, "\(count) tokens more are more than a cache may have")
        }
        var steps: [AppendStep] = []
        do {
            for (index, layer) in newLayers.enumerated() {
                steps.append(try layers[index].beginAppend(layer, newTokens: count))
                for head in 0..<layers[index].geometry.kvHeads {
                    try layers[index].packBlocks(of: steps[index], head: head)
                }
                try layers[index].makeRowRoom(for: steps[index])
            }
        } catch {
            for index in steps.indices { layers[index].abandonAppend() }
            throw error
        }
        let former = tokenCount
        tokenCount += count
        for index in layers.indices { try layers[index].finishAppend(steps[index]) }
        if let newTokens { tokens?.append(contentsOf: newTokens) } else if count > 0 { tokens = nil }
        if positions != nil || newPositions != nil {
            let old = positions ?? (0..<Int32(former)).map { $0 }
            positions = old + (newPositions ?? (Int32(former)..<Int32(tokenCount)).map { $0 })
        }
    }

    /// The same cache in memory of its own, shared with no file and no copy.
    ///
    /// - Throws: `CodecError` if there is no such memory.
    public func detached() throws(CodecError) -> CompressedCache {
        var copy = self
        copy.layers = try layers.map { layer throws(CodecError) in try layer.detached() }
        return copy
    }

    /// Drops the oldest rows of a layer: see `CompressedLayer.dropRows(keeping:)`.
    public mutating func dropRows(ofLayer index: Int, keeping count: Int) {
        layers[index].dropRows(keeping: count)
    }

    /// Keeps the first `count` tokens; see `CompressedLayer.truncate(to:)`.
    ///
    /// - Throws: `CodecError` if a layer doesn't hold all tokens or has state (`wholeOnlyReason`), or there is no memory;
    ///   nothing is dropped then.
    public mutating func truncate(to count: Int) throws(CodecError) {
        layers = try layers.map { layer throws(CodecError) in
            var shorter = layer
            try shorter.truncate(to: count)
            return shorter
        }
        tokenCount = count
        tokens = tokens.map { Array($0.prefix(count)) }
        positions = positions.map { Array($0.prefix(count)) }
    }
}
