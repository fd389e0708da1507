public import KVCacheModel
public import TextTokenization

/// A Llama-family model in a Hugging Face directory or a GGUF file: configuration, mapped weights, and tokenizer.
public struct LlamaModel: Sendable {
    public let configuration: ModelConfiguration
    public let tokenizer: Tokenizer
    let weights: ModelWeights
    private let source: any ModelSource

    /// Opens a model. Weights are mapped and not read yet.
    ///
    /// - Parameter path: a directory with `config.json`, `tokenizer.json`, and `model.safetensors` or the files that
    ///   `model.safetensors.index.json` names; or a GGUF file.
    /// - Throws: `FileError` or `ModelError` naming the file and field that is missing, damaged, in contradiction with
    ///   another, or not supported.
    public init(path: String) throws {
        source = try modelSource(path: path)
        configuration = try source.configuration()
        weights = try source.weights(configuration)
        tokenizer = try source.tokenizer(configuration)
    }

    /// How conversations with the model are written, by its chat template.
    ///
    /// - Throws: `FileError` or `ModelError` if the template can't be read; nothing else of the model depends on it.
    public func chatForm() throws -> ChatForm {
        ChatForm(template: try source.chatTemplate(), tokenizer: tokenizer)
    }

    // MARK: - Identity

    /// What tells caches of this model from those of others: Formats/snapshot.md, "METADATA". Reads every byte of the
    /// weights, but for files whose digest is remembered.
    ///
    /// - Parameters:
    ///   - producer: what computes the caches.
    ///   - digests: where digests of files are remembered; nowhere if nothing is said.
    public func metadata(
        producer: String,
        digests: FileDigests = FileDigests(folder: nil)
    ) throws -> [String: String] {
        var metadata = [
            "model.id": source.name,
            "model.fingerprint": try source.fingerprint(digests),
            "tokenizer.sha256": try source.tokenizerDigest(digests),
            "rope.theta": "\(configuration.rotary.base)",
            "producer": producer,
        ]
        metadata["rope.scaling"] = configuration.rotaryScalingText
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
