public import KVCacheModel

/// A compressed cache: layers packed by a recipe, and what tells to which model and prompt it belongs.
///
/// A value: copies share memory until one of them appends.
public struct CompressedCache: Sendable {
    public let geometry: CacheGeometry
    public let shape: BlockShape
    /// What the cache was compressed by.
    public let recipe: RecipeRecord
    /// The layers, from the first; all have the same tokens.
    public package(set) var layers: [CompressedLayer]
    /// Token ids, one per token, as far as they are known.
    public private(set) var tokens: [Int32]?
    /// Positions, one per token; nil where token t has position t.
    public private(set) var positions: [Int32]?
    public let metadata: [String: String]
    /// The query profile of each layer, `kvHeads * headDimension` numbers, if queries or a profile came with the cache.
    public let profile: [[Float]]?

    package init(
        geometry: CacheGeometry,
        recipe: RecipeRecord,
        layers: [CompressedLayer],
        tokens: [Int32]?,
        positions: [Int32]?,
        metadata: [String: String],
        profile: [[Float]]?
    ) {
        precondition(layers.count == geometry.layers, "every layer of the geometry must be there")
        self.geometry = geometry
        self.recipe = recipe
        self.layers = layers
        self.tokens = tokens
        self.positions = positions
        self.metadata = metadata
        self.profile = profile
        shape = layers[0].shape
    }

    /// Tokens in all layers.
    public var tokenCount: Int { layers[0].tokenCount }

    /// Tokens in blocks; the newer ones are in the residual window.
    public var blockTokenCount: Int { layers[0].blockTokenCount }

    /// Bytes of the blocks of all layers.
    public var blockByteCount: Int { layers.reduce(0) { $0 + $1.blockCount * $1.blockBytes } }

    /// Bytes of the residual window of all layers.
    public var windowByteCount: Int {
        geometry.valueCount(tokens: tokenCount - blockTokenCount) * shape.elementType.byteCount
    }

    /// Appends the same new tokens to all layers, one tensor pair per layer.
    ///
    /// The bytes are the same as if the tokens had been there from the start, unless a stage decides by the prompt:
    /// ThinK's mask stays as it was chosen then. On an error nothing is appended.
    ///
    /// - Parameters:
    ///   - newLayers: keys and values `[kvHeads, newTokens, headDimension]` of every layer.
    ///   - newTokens: their ids, if known; without them the cache has no token ids from here on.
    ///   - newPositions: their positions; without them token t has position t.
    /// - Throws: `CodecError` if shapes or numbers don't fit.
    public mutating func append(
        _ newLayers: [KVCacheLayer],
        tokens newTokens: [Int32]? = nil,
        positions newPositions: [Int32]? = nil
    ) throws(CodecError) {
        let count = newLayers.first?.keys.tokens ?? 0
        guard newLayers.count == layers.count, newLayers.allSatisfy({ $0.keys.tokens == count }),
            [newTokens?.count, newPositions?.count].allSatisfy({ $0 ?? count == count })
        else {
            throw CodecError(.shapeMismatch, "every layer must get the same new tokens, with as many ids and positions")
        }
        guard CacheGeometry.Limits.tokens.upperBound - tokenCount >= count else {
            throw CodecError(.shapeMismatch, "\(count) tokens more are more than a cache may have")
        }
        var steps: [AppendStep] = []
        do {
            for (index, layer) in newLayers.enumerated() {
                steps.append(try layers[index].beginAppend(layer))
                for head in 0..<shape.kvHeads {
                    try layers[index].packBlocks(of: steps[index], head: head)
                }
                try layers[index].makeWindowRoom(for: steps[index])
            }
        } catch {
            for index in steps.indices { layers[index].abandonAppend() }
            throw error
        }
        for index in layers.indices { try layers[index].finishAppend(steps[index]) }
        if let newTokens { tokens?.append(contentsOf: newTokens) } else { tokens = nil }
        if positions != nil || newPositions != nil {
            let first = Int32(tokenCount - count)
            let old = positions ?? (0..<first).map { $0 }
            positions = old + (newPositions ?? (first..<first + Int32(count)).map { $0 })
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

    /// Keeps the first `count` tokens; see `CompressedLayer.truncate(to:)`.
    ///
    /// - Throws: `CodecError` if there is no memory for it; nothing is dropped then.
    public mutating func truncate(to count: Int) throws(CodecError) {
        layers = try layers.map { layer throws(CodecError) in
            var shorter = layer
            try shorter.truncate(to: count)
            return shorter
        }
        tokens = tokens.map { Array($0.prefix(count)) }
        positions = positions.map { Array($0.prefix(count)) }
    }
}
