/// The parsers that are fed mutated input, each by what it reads.
public enum ParserTarget: String, CaseIterable, Sendable, CustomStringConvertible {
    /// A snapshot, whose checksums are mended first so that mutations get past them.
    case snapshot
    /// A cache dump: safetensors with the names and shapes of a cache.
    case dump
    /// A model's profile in safetensors.
    case profile
    /// `tokenizer.json`.
    case tokenizer
    /// Text that is encoded, and whose bytes are decoded as tokens; its first byte chooses the tokenizer.
    case text
    /// Files of a model's folder.
    case configuration, generation, tokenizerSettings, weightIndex, weights
    /// A model in a GGUF file.
    case gguf
    /// A journal of `eval`.
    case journal
    /// A journal of `profile`.
    case profileJournal
    /// The text of a recipe.
    case recipe

    public var description: String { rawValue }

    /// The file of a model's folder that this is.
    var modelFile: String? {
        switch self {
        case .configuration: "config.json"
        case .generation: "generation_config.json"
        case .tokenizerSettings: "tokenizer_config.json"
        case .weightIndex: "model.safetensors.index.json"
        case .weights: "model.safetensors"
        default: nil
        }
    }

    /// What its input is made of, for mutations that mean something.
    var syntax: Syntax {
        switch self {
        case .snapshot: .bytes
        case .gguf: .gguf
        case .dump, .profile, .weights: .safetensors
        case .text, .recipe: .text
        case .tokenizer, .configuration, .generation, .tokenizerSettings, .weightIndex, .journal, .profileJournal:
            .json
        }
    }

    enum Syntax: Sendable { case bytes, gguf, json, safetensors, text }
}
