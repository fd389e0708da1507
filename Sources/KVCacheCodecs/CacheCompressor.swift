public import CachePacking
internal import ComputeRuntime
public import KVCacheModel

/// Compresses a cache layer by layer, so that only one layer at a time need be in full precision.
///
/// The bytes are the same as those of `CompressedCache(compressing:recipe:)`.
public struct CacheCompressor: Sendable {
    public let geometry: CacheGeometry
    public let recipe: Recipe
    public let tokenCount: Int
    /// The layers so far.
    public private(set) var layers: [CompressedLayer] = []
    private let shape: BlockShape
    /// The recipe's stages for this cache; empty before the first layer.
    private var stages: [any CodecStage] = []
    /// The query profile of every layer so far, nil for those that came without queries.
    private var profiles: [[Float]?] = []

    /// - Parameter tokenCount: tokens of the cache; a layer may hold fewer.
    public init(geometry: CacheGeometry, tokenCount: Int, elementType: ElementType, recipe: Recipe) {
        self.geometry = geometry
        self.recipe = recipe
        self.tokenCount = tokenCount
        shape = BlockShape(
            elementType: elementType,
            blockLength: recipe.blockLength,
            residualWindow: recipe.residualWindow
        )
    }

    /// Compresses the next layer, all its tokens at once.
    ///
    /// - Parameter layer: keys and values of the layer's shape and the cache's element type, and the queries or the
    ///   profile that the recipe needs.
    /// - Throws: `KVCacheError` if the layer doesn't fit, `CodecError` if the recipe can't compress it;
    ///   `CancellationError` if the task is cancelled.
    public mutating func add(_ layer: KVCacheLayer) async throws {
        precondition(layers.count < geometry.layers.count, "the cache has no more layers")
        let index = layers.count
        let found = try layer.checkedGeometry(index: index, elementType: shape.elementType, tokenCount: tokenCount)
        if let mismatch = found.mismatch(with: geometry.layers[index]) {
            throw KVCacheError(
                .raggedLayers,
                layer: index,
                "its \(mismatch.name) is \(mismatch.left), and the cache has \(mismatch.right)"
            )
        }
        try await add(checked: [layer], progress: nil)
    }

    /// Compresses the next layers, which are known to fit each other.
    mutating func add(checked sources: [KVCacheLayer], progress: ProgressHandler?) async throws {
        let first = layers.count
        let statistics = sources.enumerated().map { index, source in
            LayerStatistics(
                layer: first + index,
                geometry: geometry.layers[first + index],
                source: source,
                tokenCount: tokenCount,
                blockLength: shape.blockLength
            )
        }
        if stages.isEmpty {
            let outline = CacheOutline(
                geometry: geometry,
                elementType: shape.elementType,
                tokenCount: tokenCount,
                layers: sources.count == geometry.layers.count ? statistics : nil
            )
            stages = try recipe.steps.map { step throws(CodecError) in try step.stage.prepared(for: outline) }
        }
        let (stages, observationWindow) = (stages, recipe.observationWindow)
        let slots = Slots<LayerDecision>(count: sources.count)
        try await forEachConcurrently(count: sources.count, progress: progress?.part(0...0.3)) { index in
            slots[index] = try LayerDecision(statistics[index], stages: stages, observationWindow: observationWindow)
        }
        let decisions = slots.values
        var added: [CompressedLayer] = []
        var steps: [AppendStep] = []
        var heads: [(layer: Int, head: Int)] = []
        for (index, source) in sources.enumerated() {
            let skippedTokens = source.held == .last ? tokenCount - source.keys.tokens : 0
            var layer = CompressedLayer(
                shape: shape,
                index: first + index,
                plan: decisions[index].plan,
                held: source.held,
                skippedTokens: skippedTokens
            )
            steps.append(try layer.beginAppend(source, newTokens: tokenCount - skippedTokens))
            added.append(layer)
            heads += (0..<layer.geometry.kvHeads).map { (index, $0) }
        }
        // Concurrent packers share the layers, which stay as they are until all have finished.
        let packing = (layers: added, steps: steps, heads: heads)
        try await forEachConcurrently(count: heads.count, progress: progress?.part(0.3...1)) { unit in
            let (layer, head) = packing.heads[unit]
            try packing.layers[layer].packBlocks(of: packing.steps[layer], head: head)
        }
        for index in added.indices { try added[index].finishAppend(steps[index]) }
        layers += added
        profiles += decisions.map(\.profile)
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
        precondition(layers.count == geometry.layers.count, "every layer must have been added")
        precondition(
            [tokens, positions].allSatisfy { $0?.count ?? tokenCount == tokenCount },
            "every token has an id and a position"
        )
        let known = profiles.compactMap { $0 }
        let hasProfile = known.count == profiles.count && known.contains { !$0.isEmpty }
        return CompressedCache(
            geometry: geometry,
            recipe: recipe.record,
            layers: layers,
            tokenCount: tokenCount,
            tokens: tokens,
            positions: positions,
            metadata: metadata,
            profile: hasProfile ? known : nil
        )
    }
}

/// What the stages decide for one layer.
private struct LayerDecision: Sendable {
    let plan: LayerPlan
    /// Empty for a layer without keys.
    let profile: [Float]?

    init(_ statistics: LayerStatistics, stages: [any CodecStage], observationWindow: Int) throws(CodecError) {
        var statistics = statistics
        plan = try LayerDraft.plan(for: &statistics, stages: stages)
        // Queries that no stage looked at may hold anything: then there is no profile.
        var profile: [Float]? = []
        for head in 0..<statistics.geometry.kvHeads {
            guard let squares = try? statistics.queryMeanSquares(head: head, window: observationWindow) else {
                profile = nil
                break
            }
            profile?.append(contentsOf: squares.map { Float($0) })
        }
        self.profile = profile
    }
}
