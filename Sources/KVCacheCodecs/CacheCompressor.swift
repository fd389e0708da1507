public import CachePacking
internal import ComputeRuntime
public import KVCacheModel

/// Compresses a cache layer by layer, so that only one layer at a time need be in full precision.
///
/// The bytes are the same as those of `CompressedCache(compressing:recipe:)`.
public struct CacheCompressor: Sendable {
    public let geometry: CacheGeometry
    public let recipe: Recipe
    /// The layers so far.
    public private(set) var layers: [CompressedLayer] = []
    private let shape: BlockShape
    /// The query profile of every KV head so far, nil for those that came without queries.
    private var profiles: [[Float]?] = []

    public init(geometry: CacheGeometry, elementType: ElementType, recipe: Recipe) {
        self.geometry = geometry
        self.recipe = recipe
        shape = BlockShape(
            kvHeads: geometry.kvHeads,
            headDimension: geometry.headDimension,
            elementType: elementType,
            blockLength: recipe.blockLength,
            residualWindow: recipe.residualWindow
        )
    }

    /// Compresses the next layer, all its tokens at once.
    ///
    /// - Parameter layer: keys and values `[kvHeads, tokens, headDimension]` of the cache's element type, as many
    ///   tokens as in the layers before, and the queries or the profile that the recipe needs.
    /// - Throws: `KVCacheError` or `CodecError` if the layer doesn't fit or the recipe can't compress it;
    ///   `CancellationError` if the task is cancelled.
    public mutating func add(_ layer: KVCacheLayer) async throws {
        precondition(layers.count < geometry.layers, "the cache has no more layers")
        let checked = try KVCache(layers: [layer])
        func require(_ name: String, _ found: Int, _ expected: Int) throws(CodecError) {
            guard found != expected else { return }
            throw CodecError(.shapeMismatch, layer: layers.count, "\(found) \(name), and the cache has \(expected)")
        }
        let other = checked.geometry
        try require("KV heads", other.kvHeads, geometry.kvHeads)
        try require("channels per head", other.headDimension, geometry.headDimension)
        if other.queryHeads > 0 { try require("query heads", other.queryHeads, geometry.queryHeads) }
        try require("tokens", checked.tokenCount, layers.first?.tokenCount ?? checked.tokenCount)
        try require("bits per number", checked.elementType.bitWidth, shape.elementType.bitWidth)
        try await add(checked: [layer], progress: nil)
    }

    /// Compresses the next layers, which are known to fit each other.
    mutating func add(checked sources: [KVCacheLayer], progress: ProgressHandler?) async throws {
        let heads = geometry.kvHeads
        let first = layers.count
        let units = sources.count * heads
        // The packers see what is needed of the compressor only.
        let recipe = recipe
        let decisions = Slots<HeadDecision>(count: units)
        try await forEachConcurrently(count: units, progress: progress?.part(0...0.3)) { unit in
            decisions[unit] = try HeadDecision(
                layer: first + unit / heads,
                head: unit % heads,
                source: sources[unit / heads],
                recipe: recipe
            )
        }
        let decided = decisions.values
        var added: [CompressedLayer] = []
        var steps: [AppendStep] = []
        for (index, source) in sources.enumerated() {
            let plans = decided[index * heads..<(index + 1) * heads].map(\.plan)
            var layer = CompressedLayer(shape: shape, index: first + index, plans: plans)
            steps.append(try layer.beginAppend(source))
            added.append(layer)
        }
        // Concurrent packers share the layers, which stay as they are until all have finished.
        let packing = (layers: added, steps: steps)
        try await forEachConcurrently(count: units, progress: progress?.part(0.3...1)) { unit in
            try packing.layers[unit / heads].packBlocks(of: packing.steps[unit / heads], head: unit % heads)
        }
        for index in added.indices { try added[index].finishAppend(steps[index]) }
        layers += added
        profiles += decided.map(\.profile)
    }

    /// The cache; every layer must have been added.
    ///
    /// - Parameters:
    ///   - tokens: ids, one per token.
    ///   - positions: one per token; nil where token t has position t.
    ///   - metadata: text that travels with the cache.
    public consuming func finish(
        tokens: [Int32]?,
        positions: [Int32]? = nil,
        metadata: [String: String]
    ) -> CompressedCache {
        precondition(layers.count == geometry.layers, "every layer must have been added")
        let count = layers[0].tokenCount
        precondition(
            [tokens, positions].allSatisfy { $0?.count ?? count == count },
            "every token has an id and a position"
        )
        let heads = geometry.kvHeads
        let known = profiles.compactMap { $0 }
        let layerProfiles = (0..<geometry.layers).map { layer in
            known.count < profiles.count ? [] : Array(known[layer * heads..<(layer + 1) * heads].joined())
        }
        return CompressedCache(
            geometry: geometry,
            recipe: recipe.record,
            layers: layers,
            tokens: tokens,
            positions: positions,
            metadata: metadata,
            profile: known.count < profiles.count ? nil : layerProfiles
        )
    }
}

/// What the recipe decides for one layer and KV head.
private struct HeadDecision: Sendable {
    let plan: HeadPlan
    let profile: [Float]?

    init(layer: Int, head: Int, source: KVCacheLayer, recipe: Recipe) throws(CodecError) {
        var statistics = HeadStatistics(layer: layer, head: head, source: source)
        var plan = HeadPlan(headDimension: statistics.headDimension, elementType: statistics.elementType)
        for step in recipe.steps { try step.stage.decide(&statistics, plan: &plan) }
        self.plan = plan
        // Queries that no stage looked at may hold anything: then there is no profile.
        profile = (try? statistics.queryMeanSquares(window: recipe.observationWindow))?.map { Float($0) }
    }
}
