public import CachePacking
internal import CompressedAttention
public import ComputeRuntime
internal import KVCacheModel

extension TransformerDecoder {
    /// Which logits a call returns.
    public enum LogitRows: Sendable {
        /// After the last token.
        case last
        /// After each of so many last tokens.
        case lastTokens(Int)
        /// After every token.
        case all
    }

    /// Computes tokens that follow a cache, attending to its compressed pages, and appends them to it.
    ///
    /// Tokens of one call see each other in full precision, up to `chunkTokens` of them at a time.
    ///
    /// - Parameters:
    ///   - cache: of this model; token t has position t.
    ///   - tokens: what follows.
    /// - Returns: logits `[rows, vocabularySize]`.
    /// - Throws: `ModelError` if the tokens can't be computed, `CodecError` if the cache isn't of the model's shape or
    ///   can't take the tokens, `CancellationError`; the cache then has the chunks that were computed before.
    public func extend(
        _ cache: inout CompressedCache,
        with tokens: [Int32],
        logits rows: LogitRows = .last,
        progress: ProgressHandler? = nil
    ) throws -> [Float] {
        try check(tokens, from: cache.tokenCount)
        let firstRow =
            switch rows {
            case .last: tokens.count - 1
            case .lastTokens(let count): max(tokens.count - count, 0)
            case .all: 0
            }
        var result: [Float] = []
        let end = cache.tokenCount + tokens.count
        for start in stride(from: 0, to: tokens.count, by: Self.chunkTokens) {
            try Task.checkCancellation()
            let chunk = tokens[start..<min(start + Self.chunkTokens, tokens.count)]
            let logits = try unsafe withUnsafeMutablePointer(to: &cache) { pointer in
                var one = unsafe MutableSpan(_unsafeStart: pointer, count: 1)
                return try step(
                    &one,
                    tokens: Array(chunk),
                    textTokens: end,
                    logits: min(max(firstRow - start, 0), chunk.count)..<chunk.count
                )
            }
            result += logits
            progress?(Double(chunk.endIndex) / Double(tokens.count))
        }
        return result
    }

    /// Computes the next token of each of some caches together, and appends it to its cache.
    ///
    /// - Parameter tokens: one for each cache.
    /// - Returns: logits `[caches, vocabularySize]`.
    /// - Throws: as `extend`; some caches may have their token then.
    public func advance(_ caches: inout [CompressedCache], with tokens: [Int32]) throws -> [Float] {
        precondition(tokens.count == caches.count && !caches.isEmpty, "every cache gets a token")
        let elementType = caches[0].shape.elementType
        precondition(caches.allSatisfy { $0.shape.elementType == elementType }, "caches must be of one element type")
        for (cache, token) in zip(caches, tokens) { try check([token], from: cache.tokenCount) }
        var all = caches.mutableSpan
        return try step(&all, tokens: tokens, logits: 0..<tokens.count)
    }

    /// Computes the last token of a cache again, for its logits, from what the cache holds of it.
    ///
    /// - Returns: logits `[vocabularySize]`.
    /// - Throws: `ModelError` if the cache has no token ids, `CodecError` if it isn't of the model's shape or lacks tokens
    ///   that its last one sees (`canRepeatLastToken(of:)`).
    public func repeatLastToken(of cache: CompressedCache) throws -> [Float] {
        guard let token = cache.tokens?.last else {
            throw ModelError(.invalidTokens, "the cache has no token ids, so that its last token can't be computed")
        }
        try check([token], from: cache.tokenCount - 1)
        guard canRepeatLastToken(of: cache) else {
            throw CodecError(.partialCache, "the cache lacks tokens that its last one sees; compute the prompt anew")
        }
        var caches = [cache]
        var all = caches.mutableSpan
        return try step(&all, tokens: [token], holdsTokens: true, logits: 0..<1)
    }

    /// Whether a cache holds all that its last token sees.
    func canRepeatLastToken(of cache: CompressedCache) -> Bool {
        zip(cache.layers, attentions).allSatisfy { layer, attention in
            switch layer.held {
            case .all: true
            case .last: layer.rowCount >= attention.slidingWindow ?? .max
            // Others were chosen to be left out.
            case .listed(let lists): lists.allSatisfy { $0.last.map(Int.init) == cache.tokenCount - 1 }
            }
        }
    }

    /// Computes as many tokens for each cache as `tokens` has for all of them, cache by cache.
    ///
    /// - Parameters:
    ///   - textTokens: tokens of the text, those included that are known and computed later; nil if there are none.
    ///   - holdsTokens: whether the tokens are the caches' last ones; else they follow them and are appended.
    private func step(
        _ caches: inout MutableSpan<CompressedCache>,
        tokens: [Int32],
        textTokens: Int? = nil,
        holdsTokens: Bool = false,
        logits logitRows: Range<Int>
    ) throws -> [Float] {
        let singleThreaded = SingleThreadedProducts()
        defer { extendLifetime(singleThreaded) }
        let perCache = tokens.count / caches.count
        var texts: [RotaryTables.Text] = []
        for cache in caches.indices {
            try check(caches[cache])
            let first = caches[cache].tokenCount - (holdsTokens ? perCache : 0)
            let positions = first..<first + perCache
            texts.append(.init(positions: positions, tokenCount: textTokens ?? positions.upperBound))
        }
        let turns = try RotaryTables(configuration, texts: texts)
        let hidden = try FloatMatrix(rows: tokens.count, columns: configuration.hiddenSize)
        unsafe embed(tokens[...], into: hidden[0])
        let buffers = try geometry.layers.map { geometry in
            try LayerBuffer(geometry: geometry, elementType: caches[0].shape.elementType, capacity: tokens.count)
        }
        func rows(of cache: Int) -> Range<Int> { cache * perCache..<(cache + 1) * perCache }
        try withActivations(rows: tokens.count) { activations in
            for index in geometry.layers.indices {
                unsafe try project(
                    layer: index,
                    hidden: hidden[0],
                    count: tokens.count,
                    turns: turns,
                    firstTurn: 0,
                    activations: activations
                )
                buffers[index].write(activations, count: tokens.count, at: 0)
                for cache in caches.indices {
                    try attend(
                        activations.queries(rows: rows(of: cache), geometry: attention),
                        layer: index,
                        over: caches[cache].layers[index],
                        followedBy: holdsTokens ? nil : buffers[index].layer(tokens: rows(of: cache)),
                        into: activations.attended,
                        row: rows(of: cache).lowerBound
                    )
                }
                unsafe try complete(layer: index, hidden: hidden[0], count: tokens.count, activations: activations)
            }
        }
        for cache in caches.indices where !holdsTokens {
            try caches[cache].append(
                buffers.map { $0.layer(tokens: rows(of: cache)) },
                tokens: Array(tokens[rows(of: cache)])
            )
        }
        return logitRows.isEmpty ? [] : unsafe try logits(hidden[logitRows.lowerBound], count: logitRows.count)
    }

    /// Checks that tokens can follow a cache.
    ///
    /// A layer may hold only some tokens: listed ones, which were chosen to be enough, or the last ones, as many as its
    /// attention sees.
    ///
    /// - Throws: `CodecError` naming what doesn't fit.
    public func check(_ cache: CompressedCache) throws(CodecError) {
        if let mismatch = geometry.mismatch(with: cache.geometry) {
            throw CodecError(
                .shapeMismatch,
                "does not fit the model: \(mismatch.name) \(mismatch.right), the model's \(mismatch.left)"
            )
        }
        for (layer, attention) in zip(cache.layers, attentions) {
            guard layer.state.isEmpty else {
                throw CodecError(.shapeMismatch, layer: layer.index, "has state, and the model none")
            }
            guard layer.held == .last, layer.rowCount < (attention.slidingWindow ?? .max) - 1 else { continue }
            throw CodecError(
                .partialCache,
                layer: layer.index,
                "holds the last \(layer.rowCount) of \(cache.tokenCount) tokens, and the model's attention sees "
                    + (attention.slidingWindow.map { "\($0 - 1) before the next" } ?? "all of them")
                    + "; compute the prompt anew"
            )
        }
        guard cache.positions == nil || cache.positions?.elementsEqual(0..<Int32(cache.tokenCount)) == true else {
            throw CodecError(.shapeMismatch, "the cache's positions are not 0, 1, 2 ...; only such caches go on here")
        }
    }
}
