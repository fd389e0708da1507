public import CachePacking
public import ComputeRuntime
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
    /// The model's profile of every layer, in place of what comes with the layers.
    private let profile: [LayerProfile]?
    /// Rows of each layer's KV heads before tokens are selected, as far as is known before the layers come.
    private let rowCounts: [Int]
    /// The recipe's stages for this cache, or those that they chose; empty before the first layer that has keys and values.
    private var stages: [any CodecStage] = []
    /// The query profile of every layer so far, nil for those that came without queries.
    private var profiles: [[Float]?] = []

    /// - Parameters:
    ///   - tokenCount: tokens of the cache; a layer may hold fewer.
    ///   - profile: the model's profile of every layer, used in place of the layers' own profiles and queries.
    ///   - rowCounts: rows of each layer's KV heads before tokens are selected, for stages that estimate sizes before all
    ///     layers came; nil where all hold all tokens.
    public init(
        geometry: CacheGeometry,
        tokenCount: Int,
        elementType: ElementType,
        recipe: Recipe,
        profile: [LayerProfile]? = nil,
        rowCounts: [Int]? = nil
    ) {
        precondition(
            [profile?.count, rowCounts?.count].allSatisfy { $0 ?? geometry.layers.count == geometry.layers.count },
            "every layer has a profile and rows"
        )
        self.geometry = geometry
        self.recipe = recipe
        self.tokenCount = tokenCount
        self.profile = profile
        self.rowCounts = rowCounts ?? geometry.layers.map { $0.isEmpty ? 0 : tokenCount }
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
        try await add([layer])
    }

    /// Compresses the next layers: as one by one, but for recipes that look at all layers before they decide.
    ///
    /// - Throws: as for one layer.
    public mutating func add(_ sources: [KVCacheLayer], progress: ProgressHandler? = nil) async throws {
        precondition(layers.count + sources.count <= geometry.layers.count, "the cache has no more layers")
        let checked = try zip(layers.count..., sources).map { try self.checked($1, index: $0) }
        try await add(checked: checked, progress: progress)
    }

    /// A layer that fits the cache's, with the model's profile if there is one.
    ///
    /// - Throws: `KVCacheError` if it doesn't fit.
    package func checked(_ source: KVCacheLayer, index: Int) throws(KVCacheError) -> KVCacheLayer {
        let layer =
            profile.map { source.withProfile(source.isEmpty && $0[index].isEmpty ? nil : $0[index]) } ?? source
        let found = try layer.checkedGeometry(index: index, elementType: shape.elementType, tokenCount: tokenCount)
        if let mismatch = found.mismatch(with: geometry.layers[index]) {
            throw KVCacheError(
                .raggedLayers,
                layer: index,
                "its \(mismatch.name) is \(mismatch.left), and the cache has \(mismatch.right)"
            )
        }
        return layer
    }

    /// Compresses the next layers, which are known to fit each other.
    mutating func add(checked sources: [KVCacheLayer], progress: ProgressHandler?) async throws {
        let first = layers.count
        let selecting = recipe.tokenSelection == nil ? 0 : 0.2
        let statistics = try await selected(sources, progress: progress?.part(0...selecting))
        // A stage that looks at the whole cache compresses it several times.
        let preparing = recipe.needsWholeCache ? selecting + (1 - selecting) * 0.8 : selecting
        let preparation = progress?.part(selecting...preparing)
        let progress = progress?.part(preparing...1)
        // Layers without keys and values don't tell whether queries come, and nothing is decided about them.
        if stages.isEmpty, let one = sources.first(where: { !$0.isEmpty }) {
            let isWhole = sources.count == geometry.layers.count
            var outline = CacheOutline(
                geometry: geometry,
                elementType: shape.elementType,
                tokenCount: tokenCount,
                blockLength: shape.blockLength,
                hasQueries: one.queries != nil || one.profile != nil,
                hasAccumulatedAttention: one.accumulatedAttention != nil,
                rowCounts: isWhole ? statistics.map(\.rowCount) : expectedRowCounts,
                unselectedRowCounts: isWhole ? sources.map(\.keys.tokens) : rowCounts,
                layers: isWhole ? statistics : nil,
                profile: try checkedProfile() ?? Self.profile(of: sources, layerCount: geometry.layers.count)
            )
            var prepared: [any CodecStage] = []
            for (index, step) in recipe.steps.enumerated() {
                let share = 1 / Double(recipe.steps.count)
                outline.progress = preparation?.part(Double(index) * share...Double(index + 1) * share)
                prepared.append(try await step.stage.prepared(for: outline))
            }
            stages = prepared
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
        for (index, source) in statistics.map(\.source).enumerated() {
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

    /// The statistics of the next layers, of what stays of them: all other stages see nothing else.
    private func selected(_ sources: [KVCacheLayer], progress: ProgressHandler?) async throws -> [LayerStatistics] {
        let all = zip(layers.count..., sources).map { index, source in
            LayerStatistics(
                layer: index,
                geometry: geometry.layers[index],
                source: source,
                tokenCount: tokenCount,
                blockLength: shape.blockLength
            )
        }
        guard let stage = recipe.tokenSelection else { return all }
        let selections = all.map { LayerSelection($0, by: stage, sinks: recipe.sinks) }
        let heads = selections.enumerated().filter { !$1.keepsAll }.flatMap { index, selection in
            (0..<selection.statistics.geometry.kvHeads).map { (layer: index, head: $0) }
        }
        let slots = Slots<[Int]>(count: heads.count)
        try await forEachConcurrently(count: heads.count, progress: progress) { unit in
            slots[unit] = try selections[heads[unit].layer].rows(ofHead: heads[unit].head)
        }
        let rows = Dictionary(grouping: zip(heads, slots.values), by: \.0.layer).mapValues { $0.map(\.1) }
        let selected = Slots<LayerStatistics>(count: all.count)
        try await forEachConcurrently(count: all.count) { index in
            selected[index] = try rows[index].map { try all[index].keeping($0) } ?? all[index]
        }
        return selected.values
    }

    /// Rows of each layer's KV heads after the selection of tokens, as far as is known before the layers come.
    private var expectedRowCounts: [Int] {
        guard let selection = recipe.tokenSelection else { return rowCounts }
        return rowCounts.map { rows in
            // A layer that holds all tokens begins with the first ones.
            rows == 0 ? 0 : selection.keptCount(ofRows: rows, sinks: rows == tokenCount ? min(recipe.sinks, rows) : 0)
        }
    }

    /// The metadata that says what stages chose, and why: Formats/snapshot.md, "METADATA".
    public static let rationaleKey = "recipe.rationale"

    /// The model's profile, whose layers fit the cache's: stages may look at all of them before the layers come.
    private func checkedProfile() throws(KVCacheError) -> [LayerProfile]? {
        guard let profile else { return nil }
        let hasSensitivities = profile.contains { $0.sensitivity != nil }
        let hasOutputWeights = profile.contains { $0.outputWeights != nil }
        for (index, layer) in geometry.layers.enumerated() where !layer.isEmpty {
            var fault = profile[index].fault(
                kvHeads: layer.kvHeads,
                keyDimension: layer.keyDimension,
                valueDimension: layer.valueDimension
            )
            if hasSensitivities, profile[index].sensitivity == nil { fault = "no sensitivities, and others have some" }
            if hasOutputWeights, profile[index].outputWeights == nil {
                fault = "no output weights, and others have some"
            }
            if let fault { throw KVCacheError(.invalidProfile, layer: index, fault) }
        }
        return profile
    }

    /// The profiles that came with all layers of a cache, or nil.
    private static func profile(of layers: [KVCacheLayer], layerCount: Int) -> [LayerProfile]? {
        let known = layers.compactMap { $0.isEmpty ? LayerProfile.empty : $0.profile }
        return known.count == layerCount ? known : nil
    }

    /// The cache; every layer must have been added.
    ///
    /// - Parameters:
    ///   - tokens: ids, one per token.
    ///   - positions: one per token; nil where token t has position t.
    ///   - metadata: text that travels with the cache. What stages chose for it, and why, is added to it, if a snapshot
    ///     has room for it beside the rest.
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
        var metadata = metadata
        // One that came with the cache is of another recipe.
        metadata[Self.rationaleKey] = nil
        let rationales = stages.compactMap(\.rationale)
        if !rationales.isEmpty, metadata.count < KVCache.maximumMetadataEntries {
            metadata[Self.rationaleKey] = rationales.joined(separator: "; ")
        }
        let hasProfile = known.count == profiles.count && known.contains { !$0.isEmpty }
        return CompressedCache(
            geometry: geometry,
            recipe: stages.isEmpty ? recipe.record : Recipe.record(of: stages.map(Recipe.Step.init)),
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
