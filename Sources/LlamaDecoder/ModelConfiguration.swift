public import KVCacheModel

/// The shape of a Llama-family model and how it computes: what its `config.json` says.
public struct ModelConfiguration: Sendable, Equatable {
    /// Model types that the decoder computes, as `model_type` spells them.
    public enum Family: String, Sendable, CaseIterable {
        case llama, mistral, qwen2, qwen3
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
    public let rotary: RotaryEmbedding
    /// How many tokens a query of each layer sees, its own included; nil for all.
    public let slidingWindows: [Int?]
    /// Whether the embedding is the output head, too.
    public let tiesEmbeddings: Bool
    public let hasQueryKeyValueBias: Bool
    public let hasOutputBias: Bool
    public let hasFeedForwardBias: Bool
    /// Whether queries and keys are normalized head by head before rotary embedding.
    public let normalizesQueriesAndKeys: Bool
    /// Tokens that end a text.
    public internal(set) var endTokens: Set<Int32>
    /// The token that begins a text, if there is one.
    public let beginToken: Int32?

    var queryWidth: Int { attention.queryHeads * attention.keyDimension }
    var keyValueWidth: Int { attention.kvHeads * attention.keyDimension }
}
