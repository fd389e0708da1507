internal import ByteStorage
internal import Crypto
internal import EngineFormats
internal import KVCacheModel
internal import TextTokenization

/// A model in a GGUF file: Formats/gguf.md.
struct GGUFModel: ModelSource {
    let path: String
    let file: GGUFFile
    let architecture: Architecture

    /// The architectures that the decoder computes, as `general.architecture` spells them.
    enum Architecture: String, CaseIterable, Sendable {
        case llama, qwen2, qwen3, gemma3

        var family: ModelConfiguration.Family {
            switch self {
            case .llama: .llama
            case .qwen2: .qwen2
            case .qwen3: .qwen3
            case .gemma3: .gemma3
            }
        }

        /// Whether files have the rows of queries and keys in the order that turns neighbours in rotary embedding.
        var interleavesQueriesAndKeys: Bool { self == .llama }
    }

    /// Reads the header, and whether there is a model behind it that can be computed.
    ///
    /// - Throws: `ModelError` naming what is damaged, or of another kind.
    init(path: String, bytes: SharedBytes) throws(ModelError) {
        self.path = path
        do {
            file = try GGUFFile(bytes)
            architecture = try Self.architecture(file)
        } catch {
            throw ModelError(error, path: path)
        }
    }

    private static func architecture(_ file: GGUFFile) throws(EngineFormatError) -> Architecture {
        let metadata = file.metadata
        if let type = metadata["general.type"], try type.text() != "model" {
            throw type.fault(
                "is '\(try type.text().abbreviated)', which is not a model by itself; pass the file of the model",
                .unsupported
            )
        }
        if let count = metadata["split.count"], try count.int() > 1 {
            throw count.fault(
                "is \(try count.int()): the model is split over so many files, which is not supported; join them with "
                    + "llama-gguf-split --merge",
                .unsupported
            )
        }
        let name = try metadata.required("general.architecture")
        guard let architecture = Architecture(rawValue: try name.text()) else {
            throw name.fault(
                "is '\(try name.text().abbreviated)', which is not supported; supported are "
                    + Architecture.allCases.map(\.rawValue).joined(separator: ", "),
                .unsupported
            )
        }
        guard !file.tensors.isEmpty else {
            throw EngineFormatError(
                .unsupported,
                "the file has no tensors, as files of vocabularies have none; pass the file of a model"
            )
        }
        return architecture
    }

    // MARK: - Parts

    func configuration() throws -> ModelConfiguration {
        let content: ConfigurationFile
        do {
            content = try ConfigurationFile(self)
        } catch {
            throw ModelError(error, path: path)
        }
        return try ModelConfiguration(content, path: path)
    }

    func weights(_ configuration: ModelConfiguration) throws -> ModelWeights {
        let tensors = GGUFTensors(model: self, headDimension: configuration.attention.keyDimension)
        return try ModelWeights(tensors, configuration: configuration)
    }

    func tokenizer(_ configuration: ModelConfiguration) throws -> Tokenizer {
        do {
            return try Tokenizer(file)
        } catch {
            throw ModelError(error, path: path)
        }
    }

    func chatTemplate() throws -> String? {
        do {
            return try file.metadata["tokenizer.chat_template"]?.text()
        } catch {
            throw ModelError(error, path: path)
        }
    }

    // MARK: - Identity

    /// The file's name, without `.gguf`.
    var name: String {
        let name = Self.name(of: path)
        return name.hasSuffix(".gguf") ? String(name.dropLast(5)) : name
    }

    /// The SHA-256 of the file.
    func fingerprint(_ digests: FileDigests) throws -> String { try digests.digest(path: path) }

    /// The SHA-256 of the metadata's entries that begin with `tokenizer.ggml.`, as they lie in the file, in its order.
    func tokenizerDigest(_ digests: FileDigests) throws -> String {
        var hash = SHA256()
        for entry in file.metadata.entries where entry.key.hasPrefix("tokenizer.ggml.") {
            unsafe entry.bytes.withUnsafeBytes { unsafe hash.update(bufferPointer: $0) }
        }
        return hash.finalize().hex
    }
}

/// The tensors of a GGUF file, by the names that `transformers` gives them.
struct GGUFTensors: TensorSource {
    let configurationName = "the metadata"
    let shapeFault = "take the model's own file"

    let model: GGUFModel
    let headDimension: Int

    private static let layerPrefix = "model.layers."

    func has(_ name: String) -> Bool { storedName(name).map { model.file.tensors[$0] != nil } ?? false }

    func tensor(_ name: String) throws(ModelError) -> StoredTensor? {
        guard let storedName = storedName(name), let tensor = model.file.tensors[storedName] else { return nil }
        do {
            let weights = try tensor.weights()
            let isInterleaved =
                model.architecture.interleavesQueriesAndKeys
                && (name.contains(".self_attn.q_proj.") || name.contains(".self_attn.k_proj."))
            return StoredTensor(
                path: model.path,
                name: storedName,
                shape: tensor.shape,
                type: weights.type,
                bytes: weights.bytes,
                rowOrder: isInterleaved ? .interleavedHalves(headDimension: headDimension) : .plain
            )
        } catch {
            throw ModelError(error, path: model.path)
        }
    }

    func missing(_ name: String) -> ModelError {
        ModelError(
            .damaged,
            path: model.path,
            "the file has no tensor '\(storedName(name) ?? name)'; take the model's own file"
        )
    }

    /// What the file calls a tensor; nil if it has no such.
    private func storedName(_ name: String) -> String? {
        var parts = name.split(separator: ".")
        guard let suffix = parts.popLast() else { return nil }
        switch parts.joined(separator: ".") {
        case "model.embed_tokens": return "token_embd.\(suffix)"
        case "model.norm": return "output_norm.\(suffix)"
        case "lm_head": return "output.\(suffix)"
        case let stem:
            guard stem.hasPrefix(Self.layerPrefix) else { return nil }
            let part = stem.dropFirst(Self.layerPrefix.count).split(separator: ".", maxSplits: 1)
            guard part.count == 2, let stored = layerParts[String(part[1])] else { return nil }
            return "blk.\(part[0]).\(stored).\(suffix)"
        }
    }

    /// What files call the parts of a layer.
    private var layerParts: [String: String] {
        var parts = [
            "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
            "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
            "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down",
        ]
        if model.architecture == .gemma3 {
            parts["post_attention_layernorm"] = "post_attention_norm"
            parts["pre_feedforward_layernorm"] = "ffn_norm"
            parts["post_feedforward_layernorm"] = "post_ffw_norm"
        } else {
            parts["post_attention_layernorm"] = "ffn_norm"
        }
        return parts
    }
}
