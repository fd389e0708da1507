internal import ByteStorage
internal import EngineFormats
internal import JSONText
internal import TextTokenization

extension ModelFolder {
    func tokenizer(_ configuration: ModelConfiguration) throws -> Tokenizer {
        let path = file(Self.tokenizerName)
        let tokenizer: Tokenizer
        do {
            tokenizer = try Tokenizer(path: path)
        } catch let error as TokenizerError {
            throw ModelError(error, path: path)
        }
        try check(tokenizer, path: path, configuration: configuration)
        return tokenizer
    }

    /// The model's chat template, from a file of its own or the tokenizer's settings; of several the one by name
    /// `default`, or else the first.
    func chatTemplate() throws -> String? {
        if has(Self.chatTemplateName) {
            let bytes = try Self.bytes(of: file(Self.chatTemplateName))
            return unsafe bytes.withUnsafeBytes { unsafe String(decoding: $0, as: UTF8.self) }
        }
        guard has(Self.tokenizerSettingsName) else { return nil }
        return try Self.read(file(Self.tokenizerSettingsName)) { object throws(JSONError) in
            guard let value = object.optional("chat_template") else { return nil }
            guard value.kind == .array else { return try value.text() }
            var chosen: String?
            for element in try value.elements() {
                let isDefault = try element.required("name").text() == "default"
                if chosen == nil || isDefault { chosen = try element.required("template").text() }
            }
            return chosen
        }
    }

    /// A tokenizer must be of the model: no token of its own vocabulary beyond the model's, and what begins and ends a
    /// text known to both. Checkpoints may have added tokens that the model doesn't know; prompts with them are refused.
    private func check(_ tokenizer: Tokenizer, path: String, configuration: ModelConfiguration) throws {
        guard tokenizer.modelVocabularySize <= configuration.vocabularySize else {
            throw ModelError(
                .mismatch,
                path: path,
                "has token ids up to \(tokenizer.modelVocabularySize - 1), and the model \(configuration.vocabularySize) "
                    + "tokens; it is the tokenizer of another model"
            )
        }
        guard has(Self.tokenizerSettingsName) else { return }
        let settings = file(Self.tokenizerSettingsName)
        let tokens = try Self.read(settings) { object throws(JSONError) in
            try ["bos_token", "eos_token"].map { name throws(JSONError) in
                (name: name, content: try Self.content(of: object.optional(name)))
            }
        }
        // Checkpoints give texts other ends, and even other beginnings, than their configuration says; but a token that
        // the tokenizer doesn't know is of another one.
        for (name, content) in tokens {
            guard let content, tokenizer.id(of: content) == nil else { continue }
            throw ModelError(
                .mismatch,
                path: path,
                "has no token '\(content.abbreviated)', the \(name) of \(Self.tokenizerSettingsName); it "
                    + "is the tokenizer of another model"
            )
        }
    }

    /// A token's text, plain or within its description.
    private static func content(of token: JSONValue?) throws(JSONError) -> String? {
        guard let token else { return nil }
        return try token.kind == .object ? token.required("content").text() : token.text()
    }
}
