public import TextTokenization

/// How a model's conversations are written, so that a question is put as the model was trained to be asked.
///
/// Templates are recognised by their markers, not run: these are the common forms without a system's message.
public enum ChatForm: String, Sendable, Codable, CaseIterable {
    /// No turns: text goes on. Of models without a template, or with one that is none of those below.
    case plain
    case chatML = "ChatML"
    case llama3 = "Llama 3"
    case gemma = "Gemma"
    case mistral = "Mistral"

    /// The form that a model's chat template has.
    ///
    /// - Parameters:
    ///   - template: in Jinja, as in `chat_template` of tokenizer_config.json or `tokenizer.chat_template` of a GGUF file.
    ///   - tokenizer: which must have the form's special tokens.
    public init(template: String?, tokenizer: Tokenizer) {
        let form = Self.allCases.first { form in
            guard form != .plain, let template, form.templateMarkers.allSatisfy(template.contains) else { return false }
            return form.specialTokens.allSatisfy { tokenizer.id(of: $0) != nil }
        }
        self = form ?? .plain
    }

    /// What begins the user's turn, after the tokens that begin every text.
    public var beginning: String {
        switch self {
        case .plain: ""
        case .chatML: "<|im_start|>user\n"
        case .llama3: "<|start_header_id|>user<|end_header_id|>\n\n"
        case .gemma: "<start_of_turn>user\n"
        case .mistral: "[INST] "
        }
    }

    /// What ends the user's turn and begins the model's.
    public var turn: String {
        switch self {
        case .plain: ""
        case .chatML: "<|im_end|>\n<|im_start|>assistant\n"
        case .llama3: "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        case .gemma: "<end_of_turn>\n<start_of_turn>model\n"
        case .mistral: " [/INST]"
        }
    }

    /// What every template of the form has in it.
    private var templateMarkers: [String] { self == .mistral ? ["[INST]", "[/INST]"] : specialTokens }

    /// Tokens that the form needs. Mistral's first models write theirs as plain text.
    private var specialTokens: [String] {
        switch self {
        case .plain, .mistral: []
        case .chatML: ["<|im_start|>", "<|im_end|>"]
        case .llama3: ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
        case .gemma: ["<start_of_turn>", "<end_of_turn>"]
        }
    }
}
