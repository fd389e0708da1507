import Foundation
import LlamaDecoder
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
        let isNamed = error?.message.contains(field) == true && error?.message.contains("'\(word)'") == true
        #expect(isNamed, "\(error?.message ?? "none")")
    }

    @Test func unsupportedRotaryScalingIsNamed() throws {
        let error = try error { $0["rope_scaling"] = ["rope_type": "proportional", "factor": 4] }
        #expect(error?.code == .unsupported)
        #expect(error?.message.contains("rope_type 'proportional'") == true)
    }

    @Test(
        arguments: [
            (["rope_type": "dynamic", "factor": 0.5], "factor is 0.5"), (["rope_type": "dynamic"], "factor is missing"),
            (["rope_type": "longrope", "factor": 4], "short_factor is missing"),
            (
                ["rope_type": "longrope", "short_factor": [1], "long_factor": [1]],
                "short_factor has 1 numbers, and heads have 16 pairs"
            ), (["rope_type": "yarn", "factor": 0], "factor is 0.0"),
            (["rope_type": "linear", "factor": 1e-300], "beyond float32"),
            (
                ["rope_type": "yarn", "factor": 4, "attention_factor": 1e39],
                "the attention factor by these parameters is beyond float32"
            ),
        ] as [([String: any Sendable], String)]
    ) func impossibleRotaryScalingIsRefused(parameters: [String: any Sendable], message: String) throws {
        let error = try error { $0["rope_scaling"] = parameters }
        #expect(error?.code == .damaged)
        #expect(error?.message.contains("rope_scaling: \(message)") == true || error?.message.contains(message) == true)
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
        ("vocab_size", -1), ("hidden_size", 0), ("num_hidden_layers", 1 << 40), ("num_hidden_layers", 4097),
        ("num_attention_heads", 3),
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
        #expect(try windows("gemma3") == [9, 9, 9, 9, 9, nil, 9])
    }

    @Test func theTokensThatEndATextAreOfBothFiles() throws {
        let copy = try ModelFolderCopy(of: "llama-3")
        try copy.write(#"{"eos_token_id": [7, 3]}"#, to: "generation_config.json")
        let configuration = try LlamaModel(path: copy.path).configuration
        #expect(configuration.endTokens == [2, 3, 7])
        #expect(configuration.beginToken == 1)
    }

    // MARK: - Rotary embedding

    /// The rotary embedding where these fields, in JSON, are the only ones about it.
    private func rotary(_ fields: String) throws -> Result<RotaryEmbedding, ModelError> {
        let copy = try ModelFolderCopy(of: "llama-3")
        let added = try #require(try JSONSerialization.jsonObject(with: Data(fields.utf8)) as? [String: Any])
        try copy.change("config.json") { object in
            for name in ["rope_scaling", "rope_parameters", "rope_theta"] { object[name] = nil }
            object.merge(added) { $1 }
        }
        if let error = copy.openingError() { return .failure(error) }
        return .success(try LlamaModel(path: copy.path).configuration.rotary)
    }

    private static let parameters = #""rope_parameters":{"rope_type":"linear","factor":4.0,"rope_theta":20000.0}"#

    @Test(arguments: [
        "{\(parameters)}", "{\(parameters),\"rope_scaling\":{}}", "{\"rope_scaling\":null,\(parameters)}",
        "{\(parameters),\"rope_theta\":20000}", "{\(parameters),\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}}",
        #"{"rope_theta":20000.0,"rope_parameters":{},"rope_scaling":{"type":"linear","factor":4}}"#,
        #"{"rope_scaling":{"rope_theta":2e4,"type":"other","rope_type":"linear","factor":4}}"#,
    ]) func anEmptyFieldHidesNothing(fields: String) throws {
        let rotary = try rotary(fields).get()
        #expect(rotary.base == 20000)
        #expect(rotary.scaling == .linear(factor: 4))
    }

    @Test(arguments: [
        "{\(parameters),\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8}}",
        "{\(parameters),\"rope_scaling\":{\"rope_type\":\"default\"}}", "{\(parameters),\"rope_theta\":10000}",
    ]) func fieldsThatContradictAreRefused(fields: String) throws {
        guard case .failure(let error) = try rotary(fields) else {
            Issue.record("it was read")
            return
        }
        #expect(error.code == .damaged)
        #expect(error.message.contains("contradicts"), "\(error)")
    }

    // MARK: - JSON

    @Test(arguments: ["config.json", "generation_config.json", "tokenizer_config.json"])
    func aFieldThatIsThereTwiceIsRefused(name: String) throws {
        let copy = try ModelFolderCopy(of: "llama-3")
        let text = (try? String(contentsOfFile: copy.file(name), encoding: .utf8)) ?? "{}"
        let doubled = text.replacing("{", with: #"{"eos_token_id":7,"eos_token_id":7,"#, maxReplacements: 1)
            .replacing(",}", with: "}")
        try copy.write(doubled, to: name)
        let error = copy.openingError()
        #expect(error?.code == .damaged)
        #expect(error?.path == copy.file(name))
        #expect(
            error?.message == "eos_token_id: is there twice; take the model's own file (at byte 33)",
            "\(error?.message ?? "it was read")"
        )
    }

    @Test func numbersThatAreNoneMatterWhereTheyAreNeeded() throws {
        let copy = try ModelFolderCopy(of: "llama-3")
        let text = try String(contentsOfFile: copy.file("config.json"), encoding: .utf8)
        let changed = text.replacing(#""initializer_range": 0.02"#, with: #""initializer_range": NaN, "x": -Infinity"#)
        #expect(changed != text)
        try copy.write(changed, to: "config.json")
        #expect(copy.openingError() == nil)
        for value in ["NaN", "Infinity", "1e999"] {
            try copy.write(text.replacing("1e-05", with: value), to: "config.json")
            #expect(copy.openingError()?.message.contains("rms_norm_eps: is \(value), must be a finite") == true)
        }
    }

    @Test func quantizedWeightsAreNamedByWhoMadeThem() throws {
        let mlx = try error {
            $0["quantization"] = ["group_size": 64, "bits": 4]
            $0["quantization_config"] = ["group_size": 64, "bits": 4]
        }
        #expect(
            mlx?.message.hasPrefix("quantization: weights quantized by MLX are not supported; use the model's") == true
        )
        for method in ["gptq", "awq", "bitsandbytes", "fp8", "compressed-tensors"] {
            let error = try error { $0["quantization_config"] = ["quant_method": method] }
            #expect(error?.code == .unsupported)
            #expect(error?.message.contains("weights quantized by \(method) are not supported") == true)
        }
        #expect(try error { $0["quantization_config"] = NSNull() } == nil)
    }
}
