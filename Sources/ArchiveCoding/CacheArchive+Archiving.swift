public import CacheArchives
internal import CachePacking
public import ComputeRuntime
public import KVCacheCodecs
public import KVCacheModel

extension CacheArchive {
    /// Archives a cache by a recipe whose stage is `archive`.
    ///
    /// The model's profile, as the cache's layers have it, should have bases; without, channels are coded as they are.
    ///
    /// - Throws: `CodecError` if the cache is one that archives can't hold, or no step meets the recipe's goal;
    ///   `ArchiveError` if the profile's bases or the step don't fit; `CancellationError`.
    public init(archiving cache: KVCache, recipe: Recipe, progress: ProgressHandler? = nil) async throws {
        guard let codec = recipe.archive else {
            throw CodecError(.unsupportedPlan, "\(recipe) makes no archive; take \(ArchiveCodec.registration.example)")
        }
        try ArchiveEncoder.checkNumbers(of: cache)
        let shape = BlockShape(
            elementType: cache.elementType,
            blockLength: recipe.blockLength,
            residualWindow: recipe.residualWindow
        )
        let end = max(cache.tokenCount - shape.residualWindow, 0)
        let body = min(codec.sinks, end)..<end
        var notes: [String] = []
        let shifts: [UInt8]
        if cache.layers.contains(where: { $0.queries != nil }) {
            shifts = try await TokenShifts.byAttention(
                cache,
                window: codec.observe,
                body: body,
                progress: progress?.part(0...0.3)
            )
        } else {
            shifts = try await TokenShifts.byDistance(cache, body: body, progress: progress?.part(0...0.3))
            notes.append("no queries came with the cache, so that finer steps go to tokens of unusual keys")
        }
        let bases = ArchiveBases(cache.layers.map { $0.profile ?? .empty })
        let units: ArchiveEncoder.Units
        if let bases {
            units = .profile(bases)
        } else {
            units = .channels(weights: ChannelWeights.weights(of: cache))
            notes.append(
                "there is no profile with bases, so that channels are coded as they are; think-compress profile makes "
                    + "one, by which an archive takes about half the bytes"
            )
        }
        var metadata = cache.metadata
        if !notes.isEmpty { metadata[CacheCompressor.rationaleKey] = notes.joined(separator: "; ") }
        var encoder = try await ArchiveEncoder(
            try KVCache(
                layers: cache.layers,
                tokenCount: cache.tokenCount,
                tokens: cache.tokens,
                positions: cache.positions,
                metadata: metadata
            ),
            units: units,
            shape: shape,
            sinks: codec.sinks,
            shifts: shifts,
            recipe: recipe.record,
            progress: progress?.part(0.3...0.5)
        )
        if bases == nil { encoder.queryProfile = Self.queryProfile(of: cache) }
        let search = StepSearch(encoder: encoder, cache: cache)
        self = try await search.archive(codec.goal, progress: progress?.part(0.5...1))
    }
}

extension CacheArchive {
    /// The query profile of each layer, for recipes that pack what is restored; nil without queries or keys.
    private static func queryProfile(of cache: KVCache) -> [[Float]]? {
        var profile: [[Float]] = []
        for (index, layer) in cache.layers.enumerated() {
            let statistics = LayerStatistics(
                layer: index,
                geometry: cache.geometry.layers[index],
                source: layer,
                tokenCount: cache.tokenCount
            )
            var squares: [Float] = []
            for head in 0..<layer.keys.heads {
                let window = Recipe.defaultObservationWindow
                guard let head = try? statistics.queryMeanSquares(head: head, window: window) else { return nil }
                squares += head.map { Float($0) }
            }
            profile.append(squares)
        }
        return profile.contains { !$0.isEmpty } ? profile : nil
    }
}

/// What errors of channels cost where there are no bases.
private enum ChannelWeights {
    /// The square roots of the channels' sensitivities, whose mean is 1.
    static func weights(of cache: KVCache) -> [[CachePart: [Float]]] {
        let sensitivities = cache.layers.indices.map { Self.sensitivities(of: cache, layer: $0) }
        // In order, so that the same cache gives the same weights.
        let all = sensitivities.flatMap { parts in CachePart.allCases.flatMap { parts[$0] ?? [] } }
        let total = all.reduce(0) { $0 + $1 }
        let mean = total > 0 ? total / Double(all.count) : 1
        // Channels that cost nothing are coded all the same.
        let least = 0x1p-20
        return sensitivities.map { $0.mapValues { $0.map { Float((max($0 / mean, least)).squareRoot()) } } }
    }

    /// Those of the profile; or of keys by the queries' squares and of values by the layer's variance, as errors of scores
    /// and of values relative to their size.
    private static func sensitivities(of cache: KVCache, layer index: Int) -> [CachePart: [Double]] {
        let layer = cache.layers[index]
        guard !layer.isEmpty else { return [:] }
        if let sensitivity = layer.profile?.sensitivity {
            return [.keys: sensitivity.keys.map(Double.init), .values: sensitivity.values.map(Double.init)]
        }
        var statistics = LayerStatistics(
            layer: index,
            geometry: cache.geometry.layers[index],
            source: layer,
            tokenCount: cache.tokenCount
        )
        func relative(_ part: CachePart) -> [Double] {
            let dimension = layer[part].headDimension
            let squares = (0..<layer[part].heads).reduce(0.0) { sum, head in
                let squares = (try? statistics.meanSquares(part, head: head)) ?? []
                let means = (try? statistics.means(part, head: head)) ?? []
                return sum + zip(squares, means).reduce(0.0) { $0 + ($1.0 - $1.1 * $1.1) }
            }
            let variance = squares / Double(max(layer[part].heads * dimension, 1))
            return [Double](repeating: variance > 0 ? 1 / variance : 1, count: layer[part].heads * dimension)
        }
        let window = Recipe.defaultObservationWindow
        let queries = (0..<layer.keys.heads).map { try? statistics.queryMeanSquares(head: $0, window: window) }
        let dimension = Double(layer.keys.headDimension)
        let keys =
            queries.allSatisfy { $0 != nil } ? queries.flatMap { $0 ?? [] }.map { $0 / dimension } : relative(.keys)
        return [.keys: keys, .values: relative(.values)]
    }
}
