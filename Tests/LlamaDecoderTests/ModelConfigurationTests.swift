import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Configurations that are refused, by the field that is at fault.
@Suite struct ModelConfigurationTests {
    private func error(_ model: String = "llama-3", _ change: (inout [String: Any]) -> Void) throws -> ModelError? {
        let copy = try ModelFolderCopy(of: model)
        try copy.change("config.json", change)
        let error = copy.openingError()
        #expect(error?.path.map { $0.hasPrefix(copy.path) } ?? true)
        return error
    }

    @Test(arguments: [
        ("model_type", "gemma2"), ("hidden_act", "gelu"),
    ]) func unsupportedWordsAreNamed(field: String, word: String) throws {
        let error = try error { $0[field] = word }
        #expect(error?.code == .unsupported)
        #expect(error?.message.contains("\(field) '\(word)'") == true, "\(error?.message ?? "none")")
    }

    @Test func unsupportedRotaryScalingIsNamed() throws {
        let error = try error { $0["rope_scaling"] = ["rope_type": "yarn", "factor": 4] }
        #expect(error?.code == .unsupported)
        #expect(error?.message.contains("rope_type 'yarn'") == true)
    }

    @Test func quantizedWeightsAreNamed() throws {
        let error = try error { $0["quantization_config"] = ["quant_method": "gptq"] }
        #expect(error?.code == .unsupported)
        #expect(error?.message.contains("quantization_config") == true)
    }

    @Test func partialRotationIsNamed() throws {
        #expect(try error { $0["partial_rotary_factor"] = 0.5 }?.code == .unsupported)
    }

    @Test(arguments: [
        "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "max_position_embeddings",
    ]) func missingFieldsAreNamed(field: String) throws {
        let error = try error { $0[field] = nil }
        #expect(error?.code == .damaged)
        #expect(error?.message.contains("\(field) is missing") == true, "\(error?.message ?? "none")")
    }

    @Test(arguments: [
        ("vocab_size", -1), ("hidden_size", 0), ("num_hidden_layers", 1 << 40), ("num_attention_heads", 3),
        ("head_dim", 7), ("num_key_value_heads", 0), ("intermediate_size", 1 << 25),
    ]) func impossibleSizesAreRefused(field: String, value: Int) throws {
        #expect(try error { $0[field] = value }?.code == .damaged)
    }

    @Test func fieldsOfAnotherTypeAreNamed() throws {
        let error = try error { $0["hidden_size"] = "large" }
        #expect(error?.code == .damaged)
        #expect(error?.message.contains("hidden_size") == true, "\(error?.message ?? "none")")
    }

    @Test(arguments: ["", "{", "[]", "null", "{\"model_type\": 3}", "\u{0}"])
    func damagedFilesAreErrors(text: String) throws {
        let copy = try ModelFolderCopy(of: "llama-3")
        try copy.write(text, to: "config.json")
        #expect(throws: (any Error).self) { try LlamaModel(path: copy.path) }
    }

    /// Each contradicts the weights, whose shapes are what they are.
    @Test(arguments: [
        ("hidden_size", 64), ("intermediate_size", 65), ("vocab_size", 127), ("num_hidden_layers", 3),
        ("num_key_value_heads", 4), ("head_dim", 30),
    ]) func configurationsThatLieAboutShapesAreRefused(field: String, value: Int) throws {
        let error = try error { $0[field] = value }
        #expect(error?.code == .damaged)
        #expect(error?.message.contains("tensor '") == true, "\(error?.message ?? "none")")
    }

    @Test func windowsThatContradictAreRefused() throws {
        #expect(try error("qwen2-window") { $0["sliding_window"] = -1 }?.code == .damaged)
        #expect(try error("qwen3-window") { $0["layer_types"] = ["full_attention"] }?.code == .damaged)
        #expect(try error("qwen3-window") { $0["use_sliding_window"] = false }?.code == .damaged)
        let unknown = try error("qwen3-window") {
            $0["layer_types"] = ["full_attention", "chunked_attention", "full_attention"]
        }
        #expect(unknown?.code == .unsupported)
    }

    @Test func windowsAreOfTheLayersThatHaveThem() throws {
        func windows(_ name: String) throws -> [Int?] {
            try LlamaModel(path: ProjectFiles.fixture("models/\(name)")).configuration.slidingWindows
        }
        #expect(try windows("mistral") == [8, 8])
        #expect(try windows("qwen2") == [nil, nil])
        #expect(try windows("qwen2-window") == [nil, nil, 5])
        #expect(try windows("qwen3-window") == [7, nil, 7])
        #expect(try windows("llama-3") == [nil, nil])
    }

    @Test func theTokensThatEndATextAreOfBothFiles() throws {
        let copy = try ModelFolderCopy(of: "llama-3")
        try copy.write(#"{"eos_token_id": [7, 3]}"#, to: "generation_config.json")
        let configuration = try LlamaModel(path: copy.path).configuration
        #expect(configuration.endTokens == [2, 3, 7])
        #expect(configuration.beginToken == 1)
    }
}
