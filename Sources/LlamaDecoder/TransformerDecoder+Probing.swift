internal import CompressedAttention
internal import ComputeRuntime
public import KVCacheModel

/// Tokens that follow a full-precision cache, computed once, so that what a change of one layer's keys or values does to
/// them is computed from that layer on.
public struct ProbedContinuation: Sendable {
    public let prefix: KVCache
    public let tokens: [Int32]
    /// Logits after each token: `[tokens, vocabularySize]`.
    public let logits: [Float]
    /// What enters each layer, a row per token; nobody writes to it any more.
    fileprivate let entering: [FloatMatrix]
}

extension TransformerDecoder {
    /// Tokens of a `ProbedContinuation` at the most.
    public static var maximumProbedTokens: Int { chunkTokens }

    /// Computes tokens that follow a full-precision cache, to compute them again with changes of it.
    ///
    /// - Parameters:
    ///   - prefix: from `fullCache`; token t has position t.
    ///   - tokens: at most `maximumProbedTokens`.
    /// - Throws: `ModelError` if the tokens can't be computed; `CodecError` if the prefix isn't of the model's shape or
    ///   lacks tokens.
    public func probedContinuation(of prefix: KVCache, with tokens: [Int32]) throws -> ProbedContinuation {
        precondition(tokens.count <= Self.maximumProbedTokens, "so many tokens are not computed together")
        try checkWhole(prefix)
        try check(tokens, from: prefix.tokenCount)
        let hidden = try FloatMatrix(rows: tokens.count, columns: configuration.hiddenSize)
        unsafe embed(tokens[...], into: hidden[0])
        var entering: [FloatMatrix] = []
        let logits = try computeLayers(geometry.layers.indices, of: prefix, hidden: hidden) { index in
            entering.append(try hidden.copy())
            return prefix.layers[index]
        }
        return ProbedContinuation(prefix: prefix, tokens: tokens, logits: logits, entering: entering)
    }

    /// The logits after each token of a continuation where one layer of its prefix is another.
    ///
    /// - Parameter layer: of the prefix's shape and element type, rows side by side.
    /// - Returns: logits `[tokens, vocabularySize]`.
    public func logits(
        of continuation: ProbedContinuation,
        replacing index: Int,
        by layer: KVCacheLayer
    ) throws -> [Float] {
        let hidden = try continuation.entering[index].copy()
        return try computeLayers(index..<geometry.layers.count, of: continuation.prefix, hidden: hidden) {
            $0 == index ? layer : continuation.prefix.layers[$0]
        }
    }

    /// Computes layers for tokens that follow a cache.
    ///
    /// - Parameters:
    ///   - hidden: what enters the first of the layers, a row per token; it is changed.
    ///   - cached: the rows of each layer that the tokens follow.
    /// - Returns: logits `[tokens, vocabularySize]`.
    private func computeLayers(
        _ layers: Range<Int>,
        of prefix: KVCache,
        hidden: FloatMatrix,
        cached: (Int) throws -> KVCacheLayer
    ) throws -> [Float] {
        let singleThreaded = SingleThreadedProducts()
        defer { extendLifetime(singleThreaded) }
        let (past, count) = (prefix.tokenCount, hidden.rows)
        let turns = try RotaryTables(
            configuration,
            texts: [.init(positions: past..<past + count, tokenCount: past + count)]
        )
        try withActivations(rows: count) { activations in
            for index in layers {
                try Task.checkCancellation()
                let buffer = try LayerBuffer(
                    geometry: attention,
                    elementType: prefix.elementType,
                    capacity: past + count
                )
                buffer.write(try cached(index))
                unsafe try project(
                    layer: index,
                    hidden: hidden[0],
                    count: count,
                    turns: turns,
                    firstTurn: 0,
                    activations: activations
                )
                buffer.write(activations, count: count, at: past)
                try attend(
                    activations.queries(rows: 0..<count, geometry: attention),
                    layer: index,
                    over: emptyLayer(index, elementType: prefix.elementType, skippedTokens: 0),
                    followedBy: buffer.layer(tokens: 0..<past + count),
                    into: activations.attended,
                    row: 0
                )
                unsafe try complete(layer: index, hidden: hidden[0], count: count, activations: activations)
            }
        }
        return unsafe try logits(hidden[0], count: count)
    }
}

extension LlamaModel {
    /// How much a layer's output weighs each value channel: the sum of the squared weights that multiply it, the mean over
    /// the query heads of a KV head (`o2` of Formats/profile.md).
    ///
    /// - Returns: `kvHeads * valueDimension` numbers.
    /// - Throws: `MemoryError` if there is no room for a row of the weights.
    public func outputWeightSquares(layer index: Int) throws -> [Double] {
        let shape = configuration.attention
        let matrix = weights.layers[index].output.weights
        let row = try FloatMatrix(rows: 1, columns: matrix.columns)
        var columns = [Double](repeating: 0, count: matrix.columns)
        for number in 0..<matrix.rows {
            unsafe matrix.widen(from: number, count: 1, into: row[0])
            for column in columns.indices {
                let weight = unsafe Double(row[0][column])
                columns[column] += weight * weight
            }
        }
        let (dimension, group) = (shape.valueDimension, shape.queryHeads / shape.kvHeads)
        return (0..<shape.kvHeads * dimension).map { number in
            let (head, channel) = number.quotientAndRemainder(dividingBy: dimension)
            let sum = (head * group..<(head + 1) * group).reduce(0) { $0 + columns[$1 * dimension + channel] }
            return sum / Double(group)
        }
    }
}
