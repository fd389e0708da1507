import Foundation
import LlamaDecoder
import TestSupport
import Testing
import ThinkCompress

/// Every row of the tables in Formats/model.md, tried on the loader.
@Suite struct ConfigurationTableTests {
    struct Row: Sendable, CustomTestStringConvertible {
        let file: String
        let field: String
        let families: String
        let decision: String
        /// Values in JSON.
        let example: String
        let refused: String

        var testDescription: String { "\(file) \(field) (\(families))" }

        /// The model that the row is tried on.
        var model: String {
            switch field.split(separator: ".").last {
            case "attention_factor", "mscale", "mscale_all_dim", "beta_fast", "beta_slow", "truncate":
                return "llama-yarn"
            case "short_factor", "long_factor": return "mistral-longrope"
            default: break
            }
            return switch families.split(separator: ",").first {
            case "mistral": "mistral"
            case "qwen2": "qwen2-window"
            case "qwen3": "qwen3-window"
            case "gemma3_text": "gemma3"
            default: "llama-3"
            }
        }
    }

    /// The rows of all tables, each of the file that the heading before it names. What has no example has a test of its
    /// own.
    static let rows = FormatTable.rows(of: "model.md").filter { $0.example != "" || $0.refused != "" }.map { row in
        Row(
            file: row.heading,
            field: row.field,
            families: row.families,
            decision: row.decision,
            example: row.example,
            refused: row.refused
        )
    }

    /// The fields of the configuration classes of `transformers` 5.24 for the five families and of their base class, and
    /// of the rotary embedding, quantization and older names that it looks for beside them.
    static let transformers = [
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps",
        "use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "pretraining_tp", "tie_word_embeddings",
        "rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings",
        "attention_bias", "attention_dropout", "mlp_bias", "use_sliding_window", "sliding_window", "max_window_layers",
        "layer_types", "hidden_activation", "query_pre_attn_scalar", "final_logit_softcapping",
        "attn_logit_softcapping", "rope_local_base_freq", "sliding_window_pattern", "model_type", "architectures",
        "transformers_version", "dtype", "torch_dtype", "return_dict",
        "output_hidden_states", "output_attentions", "chunk_size_feed_forward", "is_encoder_decoder", "id2label",
        "label2id", "num_labels", "problem_type", "_name_or_path", "name_or_path", "_commit_hash",
        "attn_implementation", "_attn_implementation", "experts_implementation", "per_layer_config",
        "quantization_config", "compression_config", "quantization", "auto_map", "is_causal",
        "use_bidirectional_attention",
    ]

    private static func open(_ row: Row, _ value: String) throws -> (ModelConfiguration?, ModelError?) {
        let copy = try ModelFolderCopy(of: row.model)
        let json = try JSONSerialization.jsonObject(with: Data(value.utf8), options: .fragmentsAllowed)
        if !FileManager.default.fileExists(atPath: copy.file(row.file)) { try copy.write("{}", to: row.file) }
        try copy.change(row.file) { object in
            // A field within the rotary parameters is written so.
            let parts = row.field.split(separator: ".").map(String.init)
            if parts.count == 2 {
                var inner = object[parts[0]] as? [String: Any] ?? [:]
                inner[parts[1]] = json
                object[parts[0]] = inner
            } else {
                object[row.field] = json
            }
        }
        do {
            return (try LlamaModel(path: copy.path).configuration, nil)
        } catch let error as ModelError {
            return (nil, error)
        }
    }

    @Test func everyFieldIsDecided() {
        let decided = Set(Self.rows.filter { $0.file == "config.json" }.map(\.field))
        #expect(Set(Self.transformers).subtracting(decided) == [])
        #expect(Set(Self.rows.map(\.decision)) == ["used", "ignored", "refused"])
    }

    @Test(arguments: rows) func theLoaderDoesWhatTheTableSays(row: Row) throws {
        let usual = try LlamaModel(path: ProjectFiles.fixture("models/\(row.model)")).configuration
        if row.decision != "refused" {
            let (configuration, error) = try Self.open(row, row.example)
            switch row.decision {
            case "ignored": #expect(error == nil && configuration == usual, "\(error?.description ?? "")")
            default:
                // Sizes can't change without the weights.
                let contradictsWeights = error?.code == .damaged && error?.message.contains("tensor '") == true
                let contradicts = contradictsWeights || error?.code == .mismatch
                #expect(contradicts || configuration != nil && configuration != usual, "\(error?.description ?? "")")
            }
        }
        if !row.refused.isEmpty {
            let (_, error) = try Self.open(row, row.refused)
            #expect(error?.path?.hasSuffix("/\(row.file)") == true)
            let isNamed = row.field.split(separator: ".").allSatisfy { error?.message.contains($0) == true }
            #expect(isNamed, "\(error?.description ?? "it was read")")
            if row.decision == "refused" { #expect(error?.code == .unsupported) }
        }
    }
}
