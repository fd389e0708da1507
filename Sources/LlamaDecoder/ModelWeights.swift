internal import ComputeRuntime
internal import KVCacheModel

/// The weights of a model, mapped and in their own type.
struct ModelWeights: Sendable {
    struct Layer: Sendable {
        let attentionNorm: [Float]
        let query: Linear
        let key: Linear
        let value: Linear
        let output: Linear
        let queryNorm: [Float]?
        let keyNorm: [Float]?
        /// Of what attention gives.
        let attentionOutputNorm: [Float]?
        let feedForwardNorm: [Float]
        /// Of what the feed-forward layer gives.
        let feedForwardOutputNorm: [Float]?
        let gate: Linear
        let up: Linear
        let down: Linear
    }

    let embedding: WeightMatrix
    /// What embeddings are multiplied by.
    let embeddingScale: Float
    let layers: [Layer]
    let norm: [Float]
    let head: Linear

    /// Finds every tensor that the configuration asks for.
    ///
    /// - Throws: `ModelError` if a tensor is missing, of another shape than the configuration says, or of a type that
    ///   isn't supported.
    init(_ tensors: some TensorSource, configuration: ModelConfiguration) throws {
        let hidden = configuration.hiddenSize
        let wide = configuration.intermediateSize
        let queries = configuration.queryWidth
        let keys = configuration.keyValueWidth

        // Where both are there, they are used even by models that say they have one for both; where one is, it is both.
        // Checkpoints of the model without its head have no prefix, those with other parts than text longer ones.
        let prefixes = ["model.", "", "language_model.model.", "model.language_model."]
        let prefix = prefixes.first { tensors.has("\($0)norm.weight") } ?? prefixes[0]
        let headName = prefix == prefixes[2] ? "language_model.lm_head" : "lm_head"
        let embeddingName = "\(prefix)embed_tokens"
        let isTied = configuration.tiesEmbeddings
        let hasEmbedding = !isTied || tensors.has("\(embeddingName).weight")
        let hasHead = !isTied || tensors.has("\(headName).weight")
        embedding = try tensors.matrix(
            "\(hasEmbedding ? embeddingName : headName).weight",
            rows: configuration.vocabularySize,
            columns: hidden
        )
        embeddingScale =
            configuration.scalesEmbeddings ? Self.rounded(Float(hidden).squareRoot(), as: embedding.type) : 1
        func normWeights(_ name: String, _ count: Int) throws -> [Float] {
            try tensors.vector("\(name).weight", count: count).map { $0 + configuration.normOffset }
        }
        layers = try (0..<configuration.geometry.layers.count).map { layer in
            func name(_ part: String) -> String { "\(prefix)layers.\(layer).\(part)" }
            func linear(_ part: String, _ rows: Int, _ columns: Int, hasBias: Bool) throws -> Linear {
                try tensors.linear(name(part), rows: rows, columns: columns, hasBias: hasBias)
            }
            func norm(_ part: String, _ count: Int) throws -> [Float] {
                try normWeights(name(part), count)
            }
            let hasBias = configuration.hasQueryKeyValueBias
            let hasWideBias = configuration.hasFeedForwardBias
            let normalizes = configuration.normalizesQueriesAndKeys
            let hasOutputNorms = configuration.normalizesOutputs
            let dimension = configuration.attention.keyDimension
            return Layer(
                attentionNorm: try norm("input_layernorm", hidden),
                query: try linear("self_attn.q_proj", queries, hidden, hasBias: hasBias),
                key: try linear("self_attn.k_proj", keys, hidden, hasBias: hasBias),
                value: try linear("self_attn.v_proj", keys, hidden, hasBias: hasBias),
                output: try linear("self_attn.o_proj", hidden, queries, hasBias: configuration.hasOutputBias),
                queryNorm: normalizes ? try norm("self_attn.q_norm", dimension) : nil,
                keyNorm: normalizes ? try norm("self_attn.k_norm", dimension) : nil,
                attentionOutputNorm: hasOutputNorms ? try norm("post_attention_layernorm", hidden) : nil,
                feedForwardNorm: try norm(
                    hasOutputNorms ? "pre_feedforward_layernorm" : "post_attention_layernorm",
                    hidden
                ),
                feedForwardOutputNorm: hasOutputNorms ? try norm("post_feedforward_layernorm", hidden) : nil,
                gate: try linear("mlp.gate_proj", wide, hidden, hasBias: hasWideBias),
                up: try linear("mlp.up_proj", wide, hidden, hasBias: hasWideBias),
                down: try linear("mlp.down_proj", hidden, wide, hasBias: hasWideBias)
            )
        }
        norm = try normWeights("\(prefix)norm", hidden)
        head = try tensors.linear(
            hasHead ? headName : embeddingName,
            rows: configuration.vocabularySize,
            columns: hidden,
            hasBias: false
        )
    }

    /// A number as it is in the type of weights that it is multiplied with, if they are plain numbers: `transformers` so
    /// rounds what it multiplies embeddings by, and models were trained so.
    private static func rounded(_ number: Float, as type: WeightType) -> Float {
        if type == .float16 { return Float(Float16(number)) }
        guard type == .bfloat16 else { return number }
        let bits = number.bitPattern
        return Float(bitPattern: (bits + 0x7FFF + (bits >> 16) & 1) & 0xFFFF_0000)
    }
}
