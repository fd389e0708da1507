internal import Foundation
internal import JSONText
public import KVCacheModel
public import TextTokenization

/// A Llama-family model in a Hugging Face directory: configuration, mapped weights, and tokenizer.
public struct LlamaModel: Sendable {
    public let configuration: ModelConfiguration
    public let tokenizer: Tokenizer
    /// How conversations with it are written.
    public let chatForm: ChatForm
    let weights: ModelWeights
    private let folder: ModelFolder

    /// Opens the model in a directory. Weights are mapped and not read yet.
    ///
    /// - Parameter path: a directory with `config.json`, `tokenizer.json`, and `model.safetensors` or the files that
    ///   `model.safetensors.index.json` names.
    /// - Throws: `FileError` or `ModelError` naming the file and field that is missing, damaged, in contradiction with
    ///   another, or not supported.
    public init(path: String) throws {
        folder = ModelFolder(path: path)
        try folder.check()
        var configuration = try ModelConfiguration(path: folder.file(ModelFolder.configurationName))
        weights = try ModelWeights(folder: folder, configuration: configuration)
        if folder.has(ModelFolder.generationName) {
            let path = folder.file(ModelFolder.generationName)
            configuration.endTokens.formUnion(try ModelFolder.read(path, ConfigurationFile.endTokens))
        }
        self.configuration = configuration
        let tokenizerPath = folder.file(ModelFolder.tokenizerName)
        do {
            tokenizer = try Tokenizer(path: tokenizerPath)
        } catch let error as TokenizerError {
            throw ModelError(error, path: tokenizerPath)
        }
        try Self.check(tokenizer, path: tokenizerPath, configuration: configuration, folder: folder)
        chatForm = ChatForm(template: try folder.chatTemplate(), tokenizer: tokenizer)
    }

    /// A tokenizer must be of the model: no token of its own vocabulary beyond the model's, and what begins and ends a
    /// text known to both. Checkpoints may have added tokens that the model doesn't know; prompts with them are refused.
    private static func check(
        _ tokenizer: Tokenizer,
        path: String,
        configuration: ModelConfiguration,
        folder: ModelFolder
    ) throws {
        guard tokenizer.modelVocabularySize <= configuration.vocabularySize else {
            throw ModelError(
                .mismatch,
                path: path,
                "has token ids up to \(tokenizer.modelVocabularySize - 1), and the model \(configuration.vocabularySize) "
                    + "tokens; it is the tokenizer of another model"
            )
        }
        guard folder.has(ModelFolder.tokenizerSettingsName) else { return }
        let settings = folder.file(ModelFolder.tokenizerSettingsName)
        let tokens = try ModelFolder.read(settings) { object throws(JSONError) in
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
                "has no token '\(content.prefix(80))', the \(name) of \(ModelFolder.tokenizerSettingsName); it "
                    + "is the tokenizer of another model"
            )
        }
    }

    /// A token's text, plain or within its description.
    private static func content(of token: JSONValue?) throws(JSONError) -> String? {
        guard let token else { return nil }
        return try token.kind == .object ? token.required("content").text() : token.text()
    }

    // MARK: - Identity

    /// What tells caches of this model from those of others: Formats/snapshot.md, "METADATA". Reads every byte of the
    /// weights.
    ///
    /// - Parameter producer: what computes the caches.
    public func metadata(producer: String) throws -> [String: String] {
        var metadata = [
            "model.id": URL(filePath: folder.path).standardizedFileURL.lastPathComponent,
            "model.fingerprint": try folder.fingerprint(),
            "tokenizer.sha256": try folder.digest(of: ModelFolder.tokenizerName),
            "rope.theta": "\(configuration.rotary.base)",
            "producer": producer,
        ]
        metadata["rope.scaling"] = configuration.rotary.scalingText
        return metadata
    }

    /// Checks that a cache is one of this model, by fingerprint, tokenizer, rotary embedding, and geometry.
    ///
    /// - Parameters:
    ///   - other: the cache's metadata.
    ///   - geometry: the cache's.
    ///   - metadata: this model's, from `metadata(producer:)`.
    /// - Throws: `ModelError` naming the field that differs.
    public func check(
        _ other: [String: String],
        geometry: CacheGeometry,
        against metadata: [String: String]
    ) throws(ModelError) {
        for key in CacheIdentity.decisiveKeys {
            guard let found = other[key], let mine = metadata[key] else {
                throw ModelError(.mismatch, "has no \(key), so that nobody knows which model made it; make it anew")
            }
            guard found == mine else {
                throw ModelError(
                    .mismatch,
                    "was made by another model: its \(key) is \(found.prefix(16)), this model's \(mine.prefix(16)); "
                        + "pass a snapshot of this model"
                )
            }
        }
        if let mismatch = geometry.mismatch(with: configuration.geometry) {
            throw ModelError(
                .mismatch,
                "does not fit this model: \(mismatch.name) \(mismatch.left), the model's \(mismatch.right); pass a "
                    + "snapshot of this model"
            )
        }
    }

    // MARK: - Text

    /// Token ids of a text, with those that the tokenizer puts before it.
    ///
    /// - Throws: `ModelError` if the text has no tokens.
    public func tokens(of text: String) throws -> [Int32] {
        guard !text.isEmpty else { throw ModelError(.invalidTokens, "the prompt is empty; pass some text") }
        let tokens = try tokenizer.encode(text)
        guard !tokens.isEmpty else { throw ModelError(.invalidTokens, "the prompt has no tokens; pass some text") }
        return tokens
    }
}
