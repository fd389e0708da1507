internal import ComputeRuntime
internal import KVCacheCodecs
internal import KVCacheModel

/// A prompt that is computed layer after layer, each for the whole prompt: the rows that enter the next layer.
struct LayerwisePrompt {
    /// What a prompt's layers are given with.
    struct Options {
        let elementType: ElementType
        /// How many of the last queries come along.
        let queryWindow: Int
        /// What comes along beside.
        var statistics: ModelStatistics = []
        /// Whether layers with a sliding window keep all tokens, too, and not only the last ones.
        var holdsAll = false
    }

    /// What enters the next layer, or has left the last one: a row per token.
    let hidden: FloatMatrix
    private let prefix: KVCache?
    private let options: Options
    private let turns: RotaryTables
    private var index = 0

    /// - Parameter prefix: what the tokens follow, of the same element type and with all tokens in every layer; layers are
    ///   given with its rows first, so with all of theirs.
    /// - Throws: `ModelError` if the tokens can't be computed; `MemoryError`.
    init(_ tokens: [Int32], following prefix: KVCache? = nil, options: Options, decoder: TransformerDecoder) throws {
        let past = prefix?.tokenCount ?? 0
        try decoder.check(tokens, from: past)
        self.prefix = prefix
        self.options = options
        let end = past + tokens.count
        hidden = try FloatMatrix(rows: tokens.count, columns: decoder.configuration.hiddenSize)
        turns = try RotaryTables(decoder.configuration, texts: [.init(positions: past..<end, tokenCount: end)])
        unsafe decoder.embed(tokens[...], into: hidden[0])
    }

    /// Tokens of prompts that room is needed for at a time.
    static func chunkRows(tokenCount: Int) -> Int { min(TransformerDecoder.chunkTokens, tokenCount) }

    /// Computes the next layer, of as many as the model has. The caller holds `SingleThreadedProducts`.
    ///
    /// - Parameters:
    ///   - decoder: that of the beginning.
    ///   - activations: room for `chunkRows`, which prompts can share.
    ///   - progress: told how much of the layer is done.
    mutating func computeLayer(
        by decoder: TransformerDecoder,
        using activations: Activations,
        progress: ProgressHandler?
    ) throws -> KVCacheLayer {
        let (configuration, attention) = (decoder.configuration, decoder.attention)
        let (past, count) = (prefix?.tokenCount ?? 0, hidden.rows)
        let end = past + count
        let window = min(options.queryWindow, count)
        let firstQuery = count - window
        let held =
            options.holdsAll || prefix != nil ? 0..<end : configuration.heldTokens(ofLayer: index, tokenCount: end)
        let chunkTokens = TransformerDecoder.chunkTokens
        // As many as the next chunk's first token can see are in the buffer, and then the chunk.
        let capacity = min(held.count + chunkTokens, end)
        let buffer = try LayerBuffer(geometry: attention, elementType: options.elementType, capacity: capacity)
        if let prefix { buffer.write(prefix.layers[index]) }
        /// The token of the buffer's first row.
        var first = 0
        let kept = try FloatMatrix(rows: window, columns: configuration.queryWidth)
        /// For each KV head and token, where attention is added up.
        var accumulated: [[Double]]?
        if options.statistics.contains(.accumulatedAttention) {
            let older = prefix?.layers[index].accumulatedAttention
            accumulated = (older ?? [[Double]](repeating: [], count: attention.kvHeads))
                .map { $0 + [Double](repeating: 0, count: end - $0.count) }
        }
        for start in stride(from: 0, to: count, by: chunkTokens) {
            try Task.checkCancellation()
            let rowCount = min(chunkTokens, count - start)
            // Never after a prefix, of which all is kept.
            if past + start + rowCount - first > capacity {
                buffer.moveToBeginning(start - held.count - first..<start - first)
                first = start - held.count
            }
            unsafe try decoder.project(
                layer: index,
                hidden: hidden[start],
                count: rowCount,
                turns: turns,
                firstTurn: start,
                activations: activations
            )
            buffer.write(activations, count: rowCount, at: past + start - first)
            for row in max(firstQuery - start, 0)..<max(rowCount, firstQuery - start) {
                unsafe kept[start + row - firstQuery].update(from: activations.queries[row], count: kept.columns)
            }
            let queries = activations.queries(rows: 0..<rowCount, geometry: attention)
            let before = decoder.emptyLayer(index, elementType: options.elementType, skippedTokens: first)
            let rows = buffer.layer(tokens: 0..<past + start + rowCount - first)
            if accumulated != nil {
                let weights = try decoder.attendAccumulating(
                    queries,
                    layer: index,
                    over: before,
                    followedBy: rows,
                    into: activations.attended
                )
                for (head, list) in weights.enumerated() {
                    for (row, weight) in list.enumerated() { accumulated?[head][first + row] += weight }
                }
            } else {
                try decoder.attend(
                    queries,
                    layer: index,
                    over: before,
                    followedBy: rows,
                    into: activations.attended,
                    row: 0
                )
            }
            unsafe try decoder.complete(layer: index, hidden: hidden[start], count: rowCount, activations: activations)
            progress?(Double(start + rowCount) / Double(count))
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
            accumulatedAttention: accumulated?.map { Array($0[held]) },
            outputWeights: options.statistics.contains(.outputWeights) ? try decoder.outputWeights(layer: index) : nil
        )
        index += 1
        return layer
    }
}
