public import KVCacheModel

/// What channels a profile's bases turn into components together: Formats/profile.md, "Bases".
public enum BasisUnit: String, Sendable, CaseIterable {
    /// The keys and values of one KV head.
    case head
    /// The keys and values of a layer.
    case layer
    /// The keys, or the values, of up to six layers.
    case layers

    /// Layers of a unit at most, and channels of one that has several.
    private static let mostLayers = 6
    private static let mostChannelsOfLayers = 2048
    /// Channels of a layer's unit at most where the unit is chosen: components of more take minutes each.
    private static let mostChannelsOfLayer = 4096
    /// How many parameters of a model there are for each byte of its bases, at least: 2 % of the weights in 16 bits.
    private static let parametersPerByte = 25
    /// The least share of their bytes that bases of layers may be cut to.
    private static let leastShare = 4

    /// What is best for a model's size.
    ///
    /// - Parameters:
    ///   - geometry: of its cache.
    ///   - parameterCount: of the model; nil where it isn't known.
    /// - Returns: the unit, and bytes that the bases may have; nil for as many as they take.
    public static func best(
        for geometry: CacheGeometry,
        parameterCount: Int?
    ) -> (unit: BasisUnit, byteLimit: Int?) {
        let widest = geometry.layers.reduce(0) { max($0, $1.valuesPerToken) }
        guard let parameterCount else { return (widest <= mostChannelsOfLayers ? .layer : .head, nil) }
        let limit = parameterCount / parametersPerByte
        let bytes = BasisUnit.layer.units(of: geometry).reduce(0) { sum, unit in
            let channels = unit.channelCount(in: geometry)
            return sum + channels * componentBytes(channels: channels)
        }
        if widest > mostChannelsOfLayer || bytes / leastShare > limit { return (.head, limit) }
        return (.layer, limit)
    }

    /// Bytes of a component: its row of the matrix, its scale and its variance.
    static func componentBytes(channels: Int) -> Int { channels + 2 * ElementType.float32.byteCount }

    /// The units of a cache, which have all its channels once.
    func units(of geometry: CacheGeometry) -> [ArchiveUnit] {
        func unit(_ layers: Range<Int>, heads: Range<Int>, parts: [CachePart] = CachePart.allCases) -> ArchiveUnit {
            let shape = geometry.layers[layers.lowerBound]
            return ArchiveUnit(
                layers: layers,
                heads: heads,
                hasKeys: parts.contains(.keys),
                hasValues: parts.contains(.values) && shape.valueDimension > 0
            )
        }
        let layers = geometry.layers
        let indices = layers.indices.filter { !layers[$0].isEmpty }
        switch self {
        case .head:
            return indices.flatMap { layer in
                (0..<layers[layer].kvHeads).map { unit(layer..<layer + 1, heads: $0..<$0 + 1) }
            }
        case .layer:
            return indices.map { unit($0..<$0 + 1, heads: 0..<layers[$0].kvHeads) }
        case .layers:
            var units: [ArchiveUnit] = []
            var first = 0
            while first < layers.count {
                let shape = layers[first]
                let wider = max(shape.keyDimension, shape.valueDimension) * shape.kvHeads
                var end = first + 1
                while end < layers.count, layers[end] == shape, end - first < Self.mostLayers,
                    (end + 1 - first) * wider <= Self.mostChannelsOfLayers
                { end += 1 }
                for part in CachePart.allCases where shape.dimension(part) > 0 {
                    units.append(unit(first..<end, heads: 0..<shape.kvHeads, parts: [part]))
                }
                first = end
            }
            return units
        }
    }
}
