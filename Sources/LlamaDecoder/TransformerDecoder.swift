internal import ByteStorage
public import CompressedAttention
public import ComputeRuntime
internal import KVCacheModel
internal import Synchronization

/// Computes a Llama-family model in float32: a prompt's cache, and what follows from a compressed cache.
///
/// One decoder computes one thing at a time; calls at the same time take turns at the workers.
public final class TransformerDecoder: Sendable {
    /// Tokens that are computed together: enough that weights are converted seldom, few enough for the caches.
    static let chunkTokens = 256

    public let model: LlamaModel
    /// The threads that it works on.
    public let workers: WorkerThreads
    let products: MatrixProducts
    /// The attention of every layer.
    let attentions: [Attention]
    /// Room from the last step, for the next one of the same size.
    private let idle = Mutex<Activations?>(nil)
    /// What `outputWeights(layer:)` has given, by layer.
    private let knownOutputWeights = Mutex<[Int: [Float]]>([:])

    /// - Parameters:
    ///   - threadCount: threads that work, the caller's included; nil for one per processor.
    ///   - precision: how exactly attention meets quantized keys and values.
    public init(model: LlamaModel, threadCount: Int? = nil, precision: Attention.Precision = .automatic) {
        self.model = model
        workers = WorkerThreads(threadCount: threadCount)
        products = MatrixProducts(workers: workers)
        let scale = model.configuration.attentionScale
        attentions = model.configuration.slidingWindows.map {
            Attention(scale: scale, slidingWindow: $0, precision: precision)
        }
    }

    var configuration: ModelConfiguration { model.configuration }
    var geometry: CacheGeometry { model.configuration.geometry }
    /// The shape of every layer.
    var attention: LayerGeometry { model.configuration.attention }

    /// Checks that tokens can be computed at positions from `first` on.
    ///
    /// - Throws: `ModelError` naming what is wrong.
    public func check(_ tokens: [Int32], from first: Int = 0) throws(ModelError) {
        guard !tokens.isEmpty else { throw ModelError(.invalidTokens, "there are no tokens to compute") }
        let end = first + tokens.count
        guard end <= configuration.maximumPositions else {
            throw ModelError(
                .invalidTokens,
                "the prompt has \(end) tokens, and the model \(configuration.maximumPositions) positions; shorten it"
            )
        }
        let vocabulary = 0..<Int32(configuration.vocabularySize)
        if let token = tokens.first(where: { !vocabulary.contains($0) }) {
            throw ModelError(
                .invalidTokens,
                "token id \(token) is not of the model, which has \(configuration.vocabularySize) tokens"
            )
        }
    }

    /// How much a layer's output weighs each value channel (`LlamaModel.outputWeightSquares`); computed once.
    ///
    /// - Returns: `kvHeads * valueDimension` numbers; nil if one is not finite.
    func outputWeights(layer index: Int) throws -> [Float]? {
        if let known = knownOutputWeights.withLock({ $0[index] }) { return known }
        let weights = try model.outputWeightSquares(layer: index).map { Float($0) }
        guard weights.allSatisfy(\.isFinite) else { return nil }
        knownOutputWeights.withLock { $0[index] = weights }
        return weights
    }

    // MARK: - Parts of a layer

    /// Lends room for so many tokens.
    func withActivations<Result>(rows: Int, _ body: (Activations) throws -> Result) throws -> Result {
        let former = idle.withLock { idle in
            defer { idle = nil }
            return idle
        }
        let activations: Activations
        if let former, former.rows == rows {
            activations = former
        } else {
            activations = try Activations(rows: rows, configuration: configuration)
        }
        defer { idle.withLock { $0 = activations } }
        return try body(activations)
    }

    /// Writes the embeddings of tokens to rows.
    func embed(_ tokens: ArraySlice<Int32>, into hidden: UnsafeMutablePointer<Float>) {
        let scale = model.weights.embeddingScale
        for (row, token) in tokens.enumerated() {
            unsafe model.weights.embedding.widen(
                from: Int(token),
                count: 1,
                into: hidden + row * configuration.hiddenSize
            )
        }
        if scale != 1 {
            unsafe RowOperations.multiply(hidden, by: scale, count: tokens.count * configuration.hiddenSize)
        }
    }

    /// Computes queries, keys and values of a layer, after rotary embedding, for `count` rows.
    ///
    /// - Parameters:
    ///   - turns: of the rows, from row `firstTurn` on.
    func project(
        layer index: Int,
        hidden: UnsafeMutablePointer<Float>,
        count: Int,
        turns: RotaryTables,
        firstTurn: Int,
        activations: Activations
    ) throws(MemoryError) {
        let layer = model.weights.layers[index]
        unsafe normalize(hidden, count: count, weight: layer.attentionNorm, into: activations.normalized[0])
        unsafe try products.multiply(
            activations.normalized[0],
            count: count,
            .init(layer.query, into: activations.queries[0]),
            .init(layer.key, into: activations.keys[0]),
            .init(layer.value, into: activations.values[0])
        )
        let dimension = attention.keyDimension
        let epsilon = configuration.normEpsilon
        let turns = turns[layer: index]
        workers.forEachShare(of: count) { share in
            for row in share {
                let turn = unsafe UnsafePointer(turns[firstTurn + row])
                for (matrix, norm) in [(activations.queries, layer.queryNorm), (activations.keys, layer.keyNorm)] {
                    for start in stride(from: 0, to: matrix.columns, by: dimension) {
                        let head = unsafe matrix[row] + start
                        if let norm { unsafe RowOperations.normalize(head, weight: norm, epsilon: epsilon, into: head) }
                        unsafe RowOperations.rotate(head, by: turn, half: dimension / 2)
                    }
                }
            }
        }
    }

    /// Adds what attention gave, and the feed-forward layer, to `count` rows.
    func complete(
        layer index: Int,
        hidden: UnsafeMutablePointer<Float>,
        count: Int,
        activations: Activations
    ) throws(MemoryError) {
        let layer = model.weights.layers[index]
        unsafe try products.multiply(
            activations.attended[0],
            count: count,
            .init(layer.output, into: activations.projected[0])
        )
        unsafe add(activations.projected, count: count, norm: layer.attentionOutputNorm, to: hidden)
        unsafe normalize(hidden, count: count, weight: layer.feedForwardNorm, into: activations.normalized[0])
        unsafe try products.multiply(
            activations.normalized[0],
            count: count,
            .init(layer.gate, into: activations.gates[0]),
            .init(layer.up, into: activations.ups[0])
        )
        let (wide, activation) = (configuration.intermediateSize, configuration.activation)
        workers.forEachShare(of: count) { share in
            for row in share {
                unsafe RowOperations.gate(
                    activations.gates[row],
                    with: activations.ups[row],
                    count: wide,
                    activation: activation
                )
            }
        }
        unsafe try products.multiply(
            activations.gates[0],
            count: count,
            .init(layer.down, into: activations.projected[0])
        )
        unsafe add(activations.projected, count: count, norm: layer.feedForwardOutputNorm, to: hidden)
    }

    /// Adds rows, normalized where there is a norm, to others.
    private func add(
        _ output: FloatMatrix,
        count: Int,
        norm: [Float]?,
        to hidden: UnsafeMutablePointer<Float>
    ) {
        if let norm { unsafe normalize(output[0], count: count, weight: norm, into: output[0]) }
        unsafe RowOperations.add(output[0], to: hidden, count: count * configuration.hiddenSize)
    }

    /// Logits of `count` rows: `[count, vocabularySize]`.
    func logits(_ hidden: UnsafeMutablePointer<Float>, count: Int) throws(MemoryError) -> [Float] {
        let singleThreaded = SingleThreadedProducts()
        defer { extendLifetime(singleThreaded) }
        let normalized = try FloatMatrix(rows: count, columns: configuration.hiddenSize)
        unsafe normalize(hidden, count: count, weight: model.weights.norm, into: normalized[0])
        let size = count * configuration.vocabularySize
        try AlignedBuffer.checkAvailability(byteCount: size * MemoryLayout<Float>.stride)
        do {
            return unsafe try [Float](unsafeUninitializedCapacity: size) { buffer, filled in
                if let base = buffer.baseAddress {
                    unsafe try products.multiply(normalized[0], count: count, .init(model.weights.head, into: base))
                    if let cap = configuration.logitSoftCap { unsafe RowOperations.bend(base, to: cap, count: size) }
                }
                filled = size
            }
        } catch {
            throw error as? MemoryError ?? MemoryError(byteCount: nil)
        }
    }

    private func normalize(
        _ hidden: UnsafeMutablePointer<Float>,
        count: Int,
        weight: [Float],
        into output: UnsafeMutablePointer<Float>
    ) {
        let width = configuration.hiddenSize
        workers.forEachShare(of: count) { share in
            for row in share {
                unsafe RowOperations.normalize(
                    hidden + row * width,
                    weight: weight,
                    epsilon: configuration.normEpsilon,
                    into: output + row * width
                )
            }
        }
    }
}
