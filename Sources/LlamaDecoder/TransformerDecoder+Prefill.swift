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
            elementType: elementType,
            queryWindow: recipe.observationWindow,
            statistics: recipe.modelStatistics,
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
            elementType: elementType,
            queryWindow: queryWindow,
            statistics: statistics,
            holdsAll: true,
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
            elementType: elementType,
            queryWindow: queryWindow,
            statistics: [],
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
            elementType: prefix.elementType,
            queryWindow: queryWindow,
            statistics: statistics,
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
        let hidden = try await computeLayers(tokens, elementType: .float32, queryWindow: 1, progress: nil) { _, _ in }
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
            elementType: .float16,
            queryWindow: tokens.count,
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
    ///   - prefix: what the tokens follow, of the same element type and with all tokens in every layer; layers are given
    ///     with its rows first, so with all of theirs.
    ///   - statistics: what layers are given with beside their last queries.
    ///   - holdsAll: whether layers with a sliding window keep all tokens, too, and not only the last ones.
    /// - Returns: what leaves the last layer, a row per token of `tokens`.
    private func computeLayers(
        _ tokens: [Int32],
        following prefix: KVCache? = nil,
        elementType: ElementType,
        queryWindow: Int,
        statistics: ModelStatistics = [],
        holdsAll: Bool = false,
        progress: ProgressHandler?,
        _ take: (_ index: Int, _ layer: KVCacheLayer) async throws -> Void
    ) async throws -> FloatMatrix {
        let past = prefix?.tokenCount ?? 0
        try check(tokens, from: past)
        let singleThreaded = SingleThreadedProducts()
        defer { extendLifetime(singleThreaded) }
        let width = configuration.hiddenSize
        let window = min(queryWindow, tokens.count)
        let firstQuery = tokens.count - window
        let hidden = try FloatMatrix(rows: tokens.count, columns: width)
        unsafe embed(tokens[...], into: hidden[0])
        let end = past + tokens.count
        let turns = try RotaryTables(configuration, texts: [.init(positions: past..<end, tokenCount: end)])
        let activations = try Activations(rows: min(Self.chunkTokens, tokens.count), configuration: configuration)
        let chunkCount = (tokens.count + Self.chunkTokens - 1) / Self.chunkTokens
        for index in geometry.layers.indices {
            let held =
                holdsAll || prefix != nil ? 0..<end : configuration.heldTokens(ofLayer: index, tokenCount: end)
            // As many as the next chunk's first token can see are in the buffer, and then the chunk.
            let capacity = min(held.count + Self.chunkTokens, end)
            let buffer = try LayerBuffer(geometry: attention, elementType: elementType, capacity: capacity)
            if let prefix { buffer.write(prefix.layers[index]) }
            /// The token of the buffer's first row.
            var first = 0
            let kept = try FloatMatrix(rows: window, columns: configuration.queryWidth)
            /// For each KV head and token, where attention is added up.
            var accumulated: [[Double]] = []
            if statistics.contains(.accumulatedAttention) {
                let older = prefix?.layers[index].accumulatedAttention
                accumulated = (older ?? [[Double]](repeating: [], count: attention.kvHeads))
                    .map { $0 + [Double](repeating: 0, count: end - $0.count) }
            }
            for chunk in 0..<chunkCount {
                try Task.checkCancellation()
                let start = chunk * Self.chunkTokens
                let count = min(Self.chunkTokens, tokens.count - start)
                // Never after a prefix, of which all is kept.
                if past + start + count - first > capacity {
                    buffer.moveToBeginning(start - held.count - first..<start - first)
                    first = start - held.count
                }
                unsafe try project(
                    layer: index,
                    hidden: hidden[start],
                    count: count,
                    turns: turns,
                    firstTurn: start,
                    activations: activations
                )
                buffer.write(activations, count: count, at: past + start - first)
                for row in max(firstQuery - start, 0)..<max(count, firstQuery - start) {
                    unsafe kept[start + row - firstQuery].update(from: activations.queries[row], count: kept.columns)
                }
                let queries = activations.queries(rows: 0..<count, geometry: attention)
                let before = emptyLayer(index, elementType: elementType, skippedTokens: first)
                let rows = buffer.layer(tokens: 0..<past + start + count - first)
                if statistics.contains(.accumulatedAttention) {
                    let weights = try attendAccumulating(
                        queries,
                        layer: index,
                        over: before,
                        followedBy: rows,
                        into: activations.attended
                    )
                    for (head, list) in weights.enumerated() {
                        for (row, weight) in list.enumerated() { accumulated[head][first + row] += weight }
                    }
                } else {
                    try attend(
                        queries,
                        layer: index,
                        over: before,
                        followedBy: rows,
                        into: activations.attended,
                        row: 0
                    )
                }
                unsafe try complete(layer: index, hidden: hidden[start], count: count, activations: activations)
                progress?(Double(index * chunkCount + chunk + 1) / Double(geometry.layers.count * chunkCount))
            }
            let queries = KVTensor(
                rows: kept,
                range: 0..<window,
                heads: attention.queryHeads,
                headDimension: attention.keyDimension
            )
            let layer = buffer.layer(
                tokens: held.lowerBound - first..<held.upperBound - first,
                held: held.count < end ? .last : .all,
                queries: queries,
                accumulatedAttention: statistics.contains(.accumulatedAttention)
                    ? accumulated.map { Array($0[held]) } : nil,
                outputWeights: statistics.contains(.outputWeights) ? try outputWeights(layer: index) : nil
            )
            try await take(index, layer)
        }
        return hidden
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
    private func attendAccumulating(
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
