public import ThinkCompress

/// Every byte that a compressed cache holds, to be compared with another's.
public struct CacheContent: Sendable {
    /// What a part is, and its bytes or text.
    private let parts: [(name: String, bytes: [UInt8])]

    public init(_ cache: CompressedCache) {
        var parts = cache.layers.flatMap { CacheContent($0).parts }
        parts.append(("tokens", Array("\(cache.tokens?.description ?? "none")".utf8)))
        parts.append(("positions", Array("\(cache.positions?.description ?? "none")".utf8)))
        parts.append(("metadata", Array("\(cache.metadata.sorted { $0.key < $1.key })".utf8)))
        parts.append(("profile", Array("\(cache.profile?.description ?? "none")".utf8)))
        parts.append(("recipe", Array((cache.recipe?.description ?? "none").utf8)))
        self.parts = parts
    }

    public init(_ layer: CompressedLayer) {
        let name = "layer \(layer.index)"
        var parts = [
            ("\(name): plan", Array("\(layer.plan)".utf8)),
            ("\(name): rows", Array("\(layer.extent), \(layer.held), \(layer.tokenCount)".utf8)),
        ]
        for head in 0..<layer.geometry.kvHeads {
            for block in layer.extent.blocks {
                let bytes = layer.block(block, head: head).withUnsafeBytes { Array($0) }
                parts.append(("\(name), head \(head): block \(block)", bytes))
            }
        }
        for chunk in layer.extent.chunks {
            let slab = layer.slabPieces(chunk: chunk).flatMap { piece in piece.withUnsafeBytes { Array($0) } }
            parts.append(("\(name): slab \(chunk)", slab))
        }
        for state in layer.state { parts.append(("\(name): state \(state.name)", state.bytes.array)) }
        parts.append(("\(name): sinks' keys", layer.sinkRows?.keys.packedBytes ?? []))
        parts.append(("\(name): sinks' values", layer.sinkRows?.values.packedBytes ?? []))
        parts.append(("\(name): window's keys", layer.residualWindow?.keys.packedBytes ?? []))
        parts.append(("\(name): window's values", layer.residualWindow?.values.packedBytes ?? []))
        self.parts = parts
    }

    /// The first part that differs, or nil if all are equal byte for byte.
    public func difference(from other: CacheContent) -> String? {
        for (left, right) in zip(parts, other.parts) {
            if left.name != right.name { return "\(left.name) instead of \(right.name)" }
            if left.bytes != right.bytes { return left.name }
        }
        return parts.count == other.parts.count ? nil : "\(parts.count) parts instead of \(other.parts.count)"
    }
}

extension KVCache {
    /// Keys and values of some of the tokens, as an engine would append them.
    public func layers(tokens range: Range<Int>) -> [KVCacheLayer] {
        layers.map { KVCacheLayer(keys: $0.keys[tokens: range], values: $0.values[tokens: range]) }
    }

    /// The same cache of its first tokens; queries and profiles stay.
    public func prefix(_ count: Int) throws -> KVCache {
        try KVCache(
            layers: layers.map {
                KVCacheLayer(
                    keys: $0.keys[tokens: 0..<count],
                    values: $0.values[tokens: 0..<count],
                    queries: $0.queries,
                    profile: $0.profile
                )
            },
            tokens: tokens.map { Array($0.prefix(count)) },
            positions: positions.map { Array($0.prefix(count)) },
            metadata: metadata
        )
    }
}

extension CompressedCache {
    /// Tokens in blocks, of a cache whose layers hold all tokens.
    public var blockTokenCount: Int { layers[0].extent.blockEnd }
}

extension CompressedLayer {
    /// Tokens in blocks, of a layer that holds all tokens.
    public var blockTokenCount: Int { extent.blockEnd }
}

extension KVCache {
    /// What a dump of the cache is told of its layers.
    public func dumpLayers() -> [CacheDumpWriter.Layer] {
        zip(layers, geometry.layers).map { layer, geometry in
            CacheDumpWriter.Layer(
                geometry: geometry,
                rowCount: layer.keys.tokens,
                held: layer.held,
                state: layer.state
            )
        }
    }
}
