public import KVCacheModel

/// The shape of a Llama-family model and how it computes: what its `config.json` says.
public struct ModelConfiguration: Sendable, Equatable {
    /// Model types that the decoder computes, as `model_type` spells them.
    public enum Family: String, Sendable, CaseIterable {
        case llama, mistral, qwen2, qwen3
        case gemma3 = "gemma3_text"
    }

    /// What the feed-forward layers' gate is sent through.
    public enum Activation: Sendable {
        /// `x * sigmoid(x)`.
        case silu
        /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))`.
        case gelu
    }

    public let family: Family
    /// Token ids: 0..<vocabularySize.
    public let vocabularySize: Int
    public let hiddenSize: Int
    /// Width of the feed-forward layers.
    public let intermediateSize: Int
    /// The shape of caches of the model.
    public let geometry: CacheGeometry
    /// The shape that all layers have; keys and values have one head dimension.
    public let attention: LayerGeometry
    /// Tokens that a prompt and its answer may have together.
    public let maximumPositions: Int
    public let normEpsilon: Float
    /// What is added to the weights of norms.
    public let normOffset: Float
    /// The rotary embedding of layers, but for those that `localRotary` is of.
    public let rotary: RotaryEmbedding
    /// The rotary embedding of layers with a sliding window; nil where it is that of all.
    public let localRotary: RotaryEmbedding?
    /// What attention scores are multiplied by; nil for `1 / sqrt(keyDimension)`.
    public let attentionScale: Float?
    /// How many tokens a query of each layer sees, its own included; nil for all.
    public let slidingWindows: [Int?]
    /// Whether the embedding is the output head, too.
    public let tiesEmbeddings: Bool
    public let hasQueryKeyValueBias: Bool
    public let hasOutputBias: Bool
    public let hasFeedForwardBias: Bool
    /// Whether queries and keys are normalized head by head before rotary embedding.
    public let normalizesQueriesAndKeys: Bool
    /// Whether what attention and feed-forward layers give is normalized, too, before it is added.
    public let normalizesOutputs: Bool
    /// Whether embeddings are multiplied by the root of `hiddenSize`.
    public let scalesEmbeddings: Bool
    public let activation: Activation
    /// Logits are bent to `cap * tanh(logit / cap)`; nil for none.
    public let logitSoftCap: Float?
    /// Tokens that end a text.
    public internal(set) var endTokens: Set<Int32>
    /// The token that begins a text, if there is one.
    public let beginToken: Int32?

    /// The tokens of a prompt whose keys and values a layer keeps: all, or the last that its last token, and so those to
    /// come, can see.
    public func heldTokens(ofLayer layer: Int, tokenCount: Int) -> Range<Int> {
        max(tokenCount - (slidingWindows[layer] ?? tokenCount), 0)..<tokenCount
    }

    /// The rotary embedding of a layer.
    public func rotary(ofLayer layer: Int) -> RotaryEmbedding {
        slidingWindows[layer] == nil ? rotary : localRotary ?? rotary
    }

    var queryWidth: Int { attention.queryHeads * attention.keyDimension }
    var keyValueWidth: Int { attention.kvHeads * attention.keyDimension }
}
