/// How a model's profile is measured: what all measurements of one profile share.
public struct ProfileSettings: Codable, Sendable, Equatable {
    /// How finely errors are told apart.
    public enum Effort: Int, Codable, Sendable, CaseIterable, Comparable {
        /// Mean squared queries alone.
        case queries
        /// Sensitivities layer by layer.
        case layers
        /// KV head by KV head.
        case heads
        /// KV head by KV head, and of keys also band by band of eight rotary pairs.
        case bands

        public static func < (left: Effort, right: Effort) -> Bool { left.rawValue < right.rawValue }
    }

    /// First tokens that carry no noise: attention sinks.
    public static let firstTokens = 4
    /// Last tokens of a prefix that carry no noise: those of a residual window.
    public static let lastTokens = 128
    /// Tokens of the text after a prefix whose predictions are compared.
    public static let continuation = 64
    /// Tokens of the prefix that are read again after these: what errors cost where a prompt is searched, which the text
    /// itself hardly does.
    public static let copied = 64
    /// Tokens whose predictions are compared.
    public static let following = continuation + copied
    /// Tokens of a prefix where model and texts have so many.
    public static let defaultPrefix = 2048
    /// Tokens of a prefix at the least, so that there are some to carry noise.
    public static let minimumPrefix = 192
    /// Rotary pairs of a band.
    static let bandPairs = 8

    /// The model's name, its fingerprint, and the SHA-256 of its tokenizer.
    public let model: String
    public let fingerprint: String
    public let tokenizer: String
    /// SHA-256 digests of the texts, in hex.
    public let texts: [String]
    public let effort: Effort
    /// Tokens that are read at a time where queries are squared.
    public let context: Int
    /// Tokens of a prefix.
    public let prefix: Int
    /// What the noise follows from.
    public let seed: UInt64

    /// - Parameters:
    ///   - metadata: the model's, from `LlamaModel.metadata(producer:)`.
    ///   - texts: SHA-256 digests of the texts, in hex.
    public init(
        metadata: [String: String],
        texts: [String],
        effort: Effort,
        context: Int,
        prefix: Int,
        seed: UInt64
    ) {
        model = metadata["model.id", default: ""]
        fingerprint = metadata["model.fingerprint", default: ""]
        tokenizer = metadata["tokenizer.sha256", default: ""]
        self.texts = texts
        self.effort = effort
        self.context = context
        self.prefix = prefix
        self.seed = seed
    }

    /// How many prefixes there are, of which bands are measured on fewer: there are many bands.
    var prefixCount: Int { effort == .queries ? 0 : 3 }
    func prefixCount(of probe: NoiseProbe) -> Int { probe.band == nil ? prefixCount : 2 }
}
