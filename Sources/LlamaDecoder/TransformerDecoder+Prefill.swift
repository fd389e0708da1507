internal import ByteStorage
public import CachePacking
internal import CompressedAttention
public import ComputeRuntime
public import KVCacheCodecs
public import KVCacheModel

/// A prompt's compressed cache and what the model says next.
public struct Prefill: Sendable {
    public let cache: CompressedCache
    /// Logits of the token after the prompt, one per id of the vocabulary.
    public let logits: [Float]
}

extension TransformerDecoder {
    /// Computes a prompt's cache layer by layer and compresses each layer as it is done, so that keys and values of one
    /// layer alone are ever in full precision.
    ///
    /// A recipe that looks at the whole cache before it decides gets it in full precision.
    ///
    /// A layer with a sliding window holds the last tokens alone, as many as attention sees
    /// (`ModelConfiguration.heldTokens`), so that the cache of a longer prompt can be reused whole only.
    ///
    /// The prompt itself is computed with full-precision attention, as in the papers.
    ///
    /// - Parameters:
    ///   - tokens: the prompt.
    ///   - recipe: how to compress. The cache's element type is the recipe's own if it is `bf16` or `f32`, else float16.
    ///   - profile: the model's profile of every layer, in place of the prompt's last queries.
    ///   - metadata: what the cache will say of its model; see `LlamaModel.metadata(producer:)`.
    ///   - progress: told how much of the prompt is done.
    ///   - compressionProgress: told how much of compressing is done, where the recipe looks at the whole cache after
    ///     the prompt; made when that begins.
    ///   - observe: called with each layer in full precision and compressed.
    /// - Throws: `ModelError` if there are no tokens, or more than the model has positions; `CodecError` if the recipe
    ///   can't compress the cache; `CancellationError`.
    public func prefill(
        _ tokens: [Int32],
        recipe: Recipe,
        profile: [LayerProfile]? = nil,
        metadata: [String: String] = [:],
        progress: ProgressHandler? = nil,
        compressionProgress: @autoclosure () -> ProgressHandler? = nil,
        observe: ((KVCacheLayer, CompressedLayer) async throws -> Void)? = nil
    ) async throws -> Prefill {
        let elementType = Self.elementType(for: recipe)
        var compressor = CacheCompressor(
            geometry: geometry,
            tokenCount: tokens.count,
            elementType: elementType,
            recipe: recipe,
            profile: profile,
            rowCounts: geometry.layers.indices.map {
                model.configuration.heldTokens(ofLayer: $0, tokenCount: tokens.count).count
            }
        )
        var whole: [KVCacheLayer] = []
        let hidden = try await computeLayers(
            tokens,
            options: .init(
                elementType: elementType,
                queryWindow: recipe.observationWindow,
                statistics: recipe.modelStatistics
            ),
            progress: progress
        ) { index, layer in
            if recipe.needsWholeCache {
                whole.append(layer)
            } else {
                try await compressor.add(layer)
                try await observe?(layer, compressor.layers[index])
            }
        }
        if recipe.needsWholeCache {
            try await compressor.add(whole, progress: compressionProgress())
            for (layer, compressed) in zip(whole, compressor.layers) { try await observe?(layer, compressed) }
        }
        return Prefill(
            cache: compressor.finish(tokens: tokens, metadata: metadata),
            logits: unsafe try logits(hidden[tokens.count - 1], count: 1)
        )
    }

    /// Computes a prompt's cache in full precision, all layers and all their tokens: for measurements that compare with
    /// it, or with a part.
    ///
    /// - Parameters:
    ///   - queryWindow: how many of the last queries come along.
    ///   - statistics: what comes along beside.
    /// - Throws: as `prefill`.
    public func fullCache(
        _ tokens: [Int32],
        elementType: ElementType = .float16,
        queryWindow: Int = Recipe.defaultObservationWindow,
        statistics: ModelStatistics = [],
        metadata: [String: String] = [:],
        progress: ProgressHandler? = nil
    ) async throws -> KVCache {
        var layers: [KVCacheLayer] = []
        _ = try await computeLayers(
            tokens,
            options: .init(
                elementType: elementType,
                queryWindow: queryWindow,
                statistics: statistics,
                holdsAll: true
            ),
            progress: progress
        ) { _, layer in
            layers.append(layer)
        }
        return try KVCache(layers: layers, tokens: tokens, metadata: metadata)
    }

    /// Computes a prompt's cache in full precision, of each layer the tokens that attention sees after it
    /// (`ModelConfiguration.heldTokens`).
    ///
    /// - Parameter queryWindow: how many of the last queries come along.
    /// - Throws: as `prefill`.
    public func heldCache(
        _ tokens: [Int32],
        elementType: ElementType = .float16,
        queryWindow: Int,
        metadata: [String: String] = [:],
        progress: ProgressHandler? = nil
    ) async throws -> KVCache {
        var layers: [KVCacheLayer] = []
        _ = try await computeLayers(
            tokens,
            options: .init(elementType: elementType, queryWindow: queryWindow),
            progress: progress
        ) { _, layer in
            layers.append(layer)
        }
        return try KVCache(layers: layers, tokenCount: tokens.count, tokens: tokens, metadata: metadata)
    }

    /// Computes tokens that follow a full-precision cache: what `fullCache` gives for all tokens at once, its last
    /// queries included, and the statistics that the prefix has, but that where frequencies depend on a
    /// text's length (`dynamic`, `longrope`) the prefix keeps its own.
    ///
    /// - Parameters:
    ///   - prefix: from `fullCache` of the same model; it stays as it is.
    ///   - queryWindow: how many of the last queries come along, of those that the prefix has.
    /// - Throws: as `prefill`; `CodecError` if the prefix isn't of the model's shape or lacks tokens.
    public func fullCache(
        _ tokens: [Int32],
        following prefix: KVCache,
        queryWindow: Int = Recipe.defaultObservationWindow
    ) async throws -> KVCache {
        try checkWhole(prefix)
        var statistics: ModelStatistics = []
        if prefix.layers.allSatisfy({ $0.accumulatedAttention != nil }) { statistics.insert(.accumulatedAttention) }
        if prefix.layers.allSatisfy({ $0.outputWeights != nil }) { statistics.insert(.outputWeights) }
        var layers: [KVCacheLayer] = []
        _ = try await computeLayers(
            tokens,
            following: prefix,
            options: .init(elementType: prefix.elementType, queryWindow: queryWindow, statistics: statistics),
            progress: nil
        ) { index, layer in
            let queries = try layer.queries.map { newer in
                try self.lastQueries(queryWindow, of: prefix.layers[index].queries, followedBy: newer)
            }
            layers.append(
                KVCacheLayer(
                    keys: layer.keys,
                    values: layer.values,
                    queries: queries,
                    accumulatedAttention: layer.accumulatedAttention,
                    outputWeights: layer.outputWeights
                )
            )
        }
        return try KVCache(
            layers: layers,
            tokens: prefix.tokens.map { $0 + tokens },
            metadata: prefix.metadata
        )
    }

    /// Checks that a full-precision cache is of the model's shape and has all tokens in every layer.
    func checkWhole(_ cache: KVCache) throws(CodecError) {
        if let mismatch = geometry.mismatch(with: cache.geometry) {
            throw CodecError(
                .shapeMismatch,
                "does not fit the model: \(mismatch.name) \(mismatch.right), the model's \(mismatch.left)"
            )
        }
        guard cache.layers.allSatisfy({ $0.keys.tokens == cache.tokenCount && $0.state.isEmpty }) else {
            throw CodecError(.partialCache, "the cache lacks tokens of a layer; compute the prompt anew")
        }
    }

    /// The last `window` queries of two runs, or as many as there are.
    private func lastQueries(
        _ window: Int,
        of older: KVTensor?,
        followedBy newer: KVTensor
    ) throws(MemoryError) -> KVTensor {
        guard let older, newer.tokens < window else { return newer }
        let kept = min(window - newer.tokens, older.tokens)
        let rows = try FloatMatrix(rows: kept + newer.tokens, columns: configuration.queryWidth)
        let dimension = attention.keyDimension
        for (tensor, first, row) in [(older, older.tokens - kept, 0), (newer, 0, kept)] {
            for token in first..<tensor.tokens {
                for head in 0..<tensor.heads {
                    let place = unsafe rows[row + token - first] + head * dimension
                    unsafe tensor.widenRows(head: head, from: token, count: 1, into: place)
                }
            }
        }
        return KVTensor(
            rows: rows,
            range: 0..<rows.rows,
            heads: attention.queryHeads,
            headDimension: dimension
        )
    }

    /// Logits after every token of a text: `[tokens, vocabularySize]`, computed in float32 throughout.
    ///
    /// - Throws: as `prefill`.
    public func logits(_ tokens: [Int32]) async throws -> [Float] {
        let options = LayerwisePrompt.Options(elementType: .float32, queryWindow: 1)
        let hidden = try await computeLayers(tokens, options: options, progress: nil) { _, _ in }
        return unsafe try logits(hidden[0], count: tokens.count)
    }

    /// The query profile of a text: the mean squared query of every layer, KV head and channel over all tokens.
    ///
    /// - Returns: for each layer `kvHeads * keyDimension` numbers.
    /// - Throws: as `prefill`.
    public func queryProfile(_ tokens: [Int32], progress: ProgressHandler? = nil) async throws -> [[Double]] {
        var profile: [[Double]] = []
        _ = try await computeLayers(
            tokens,
            options: .init(elementType: .float16, queryWindow: tokens.count),
            progress: progress
        ) { index, layer in
            profile.append(
                try (0..<attention.kvHeads).flatMap { head in
                    let statistics = LayerStatistics(
                        layer: index,
                        geometry: attention,
                        source: layer,
                        tokenCount: tokens.count
                    )
                    return try statistics.queryMeanSquares(head: head, window: tokens.count) ?? []
                }
            )
        }
        return profile
    }

    /// The element type of a cache that the recipe can compress.
    static func elementType(for recipe: Recipe) -> ElementType {
        for case let codec as FullPrecisionCodec in recipe.steps.map(\.stage) { return codec.elementType }
        return .float16
    }

    /// Computes layer after layer, each for the whole prompt.
    ///
    /// - Parameters:
    ///   - prefix: what the tokens follow; see `LayerwisePrompt`.
    ///   - options: what layers are given with.
    /// - Returns: what leaves the last layer, a row per token of `tokens`.
    private func computeLayers(
        _ tokens: [Int32],
        following prefix: KVCache? = nil,
        options: LayerwisePrompt.Options,
        progress: ProgressHandler?,
        _ take: (_ index: Int, _ layer: KVCacheLayer) async throws -> Void
    ) async throws -> FloatMatrix {
        let singleThreaded = SingleThreadedProducts()
        defer { extendLifetime(singleThreaded) }
        var prompt = try LayerwisePrompt(tokens, following: prefix, options: options, decoder: self)
        let rows = LayerwisePrompt.chunkRows(tokenCount: tokens.count)
        let activations = try Activations(rows: rows, configuration: configuration)
        let count = Double(geometry.layers.count)
        for index in geometry.layers.indices {
            let share = Double(index) / count...Double(index + 1) / count
            let layer = try prompt.computeLayer(by: self, using: activations, progress: progress?.part(share))
            try await take(index, layer)
        }
        return prompt.hidden
    }

    /// A layer without rows, for attention over tokens that are not compressed.
    func emptyLayer(_ index: Int, elementType: ElementType, skippedTokens: Int) -> CompressedLayer {
        let shape = BlockShape(
            elementType: elementType,
            blockLength: Recipe.defaultBlockLength,
            residualWindow: 0
        )
        let head = HeadPlan(fullPrecision: attention)
        let plan = LayerPlan(geometry: attention, heads: [HeadPlan](repeating: head, count: attention.kvHeads))
        return CompressedLayer(
            shape: shape,
            index: index,
            plan: plan,
            held: skippedTokens == 0 ? .all : .last,
            skippedTokens: skippedTokens
        )
    }

    /// Writes the attention of some queries to rows from `row` on.
    func attend(
        _ queries: KVTensor,
        layer index: Int,
        over layer: CompressedLayer,
        followedBy newer: KVCacheLayer?,
        into attended: FloatMatrix,
        row: Int
    ) throws(CodecError) {
        let count = queries.tokens * attended.columns
        var output = unsafe MutableSpan(_unsafeStart: attended[row], count: count)
        try attentions[index].attend(queries, over: layer, followedBy: newer, using: workers, into: &output)
    }

    /// Writes the attention of some queries to rows, and adds up what tokens in full precision get of it.
    func attendAccumulating(
        _ queries: KVTensor,
        layer index: Int,
        over layer: CompressedLayer,
        followedBy tokens: KVCacheLayer,
        into attended: FloatMatrix
    ) throws(CodecError) -> [[Double]] {
        let count = queries.tokens * attended.columns
        var output = unsafe MutableSpan(_unsafeStart: attended[0], count: count)
        return try attentions[index].attendAccumulating(
            queries,
            over: layer,
            followedBy: tokens,
            using: workers,
            into: &output
        )
    }
}
