public import KVCacheModel

extension CompressedCache {
    /// Compresses a whole cache at once, on all processors.
    ///
    /// First every head's plan is decided, then its blocks are packed in one pass; the bytes don't depend on the
    /// number of processors.
    ///
    /// - Throws: `CodecError` if the recipe can't compress this cache (its type, its numbers, missing queries);
    ///   `CancellationError` if the task is cancelled.
    public init(
        compressing cache: KVCache,
        recipe: Recipe,
        progress: ProgressHandler? = nil
    ) async throws {
        let heads = cache.geometry.kvHeads
        let units = cache.geometry.layers * heads
        let shape = BlockShape(
            kvHeads: heads,
            headDimension: cache.geometry.headDimension,
            elementType: cache.elementType,
            blockLength: recipe.blockLength,
            residualWindow: recipe.residualWindow
        )
        let decisions = Slots<HeadDecision>(count: units)
        try await forEachConcurrently(count: units, progress: progress?.part(0...0.3)) { unit in
            decisions[unit] = try HeadDecision(
                layer: unit / heads,
                head: unit % heads,
                source: cache.layers[unit / heads],
                recipe: recipe
            )
        }
        let decided = decisions.values
        var layers: [CompressedLayer] = []
        var steps: [AppendStep] = []
        for (index, source) in cache.layers.enumerated() {
            let plans = decided[index * heads..<(index + 1) * heads].map(\.plan)
            var layer = CompressedLayer(shape: shape, index: index, plans: plans)
            steps.append(try layer.beginAppend(source))
            layers.append(layer)
        }
        // Concurrent packers share the layers, which stay as they are until all have finished.
        let packing = (layers: layers, steps: steps)
        try await forEachConcurrently(count: units, progress: progress?.part(0.3...1)) { unit in
            try packing.layers[unit / heads].packBlocks(of: packing.steps[unit / heads], head: unit % heads)
        }
        for index in layers.indices { layers[index].finishAppend(steps[index]) }
        let headProfiles = decided.compactMap(\.profile)
        let profiles = (0..<cache.geometry.layers).map { layer in
            headProfiles.count < units ? [] : Array(headProfiles[layer * heads..<(layer + 1) * heads].joined())
        }
        self.init(
            geometry: cache.geometry,
            recipe: recipe,
            layers: layers,
            tokens: cache.tokens,
            positions: cache.positions,
            metadata: cache.metadata,
            profile: headProfiles.count < units ? nil : profiles
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
