import Foundation
import LlamaDecoder
import TestSupport
import Testing
import ThinkCompress

/// Directories whose files are missing, damaged, or of another model.
@Suite struct ModelFilesTests {
    @Test func aMissingDirectoryIsNamed() throws {
        let error = #expect(throws: FileError.self) { try LlamaModel(path: "no/such/model") }
        #expect(error?.path == "no/such/model")
    }

    @Test func aFileInPlaceOfADirectoryIsNamed() throws {
        let path = ProjectFiles.fixture("README.md")
        #expect(throws: FileError.self) { try LlamaModel(path: path) }
    }

    @Test(arguments: ["config.json", "tokenizer.json"]) func missingFilesAreNamed(name: String) throws {
        let copy = try ModelFolderCopy(of: "llama-3")
        try copy.remove(name)
        let error = #expect(throws: FileError.self) { try LlamaModel(path: copy.path) }
        #expect(error?.path == copy.file(name))
    }

    @Test func missingWeightsAreNamed() throws {
        let copy = try ModelFolderCopy(of: "llama-3")
        try copy.remove("model.safetensors")
        #expect(copy.openingError()?.path == copy.file("model.safetensors"))
    }

    @Test func aMissingShardIsNamed() throws {
        let copy = try ModelFolderCopy(of: "llama-2")
        try copy.remove("model-00002-of-00003.safetensors")
        let error = copy.openingError()
        #expect(error?.path == copy.file("model-00002-of-00003.safetensors"))
        #expect(error?.message.contains("model.safetensors.index.json names it") == true)
    }

    @Test(arguments: [0, 5, 8, 100, 1000, 27_487]) func aTruncatedShardIsNamed(length: Int) throws {
        let copy = try ModelFolderCopy(of: "llama-2")
        let name = "model-00002-of-00003.safetensors"
        try copy.truncate(name, to: length)
        let error = #expect(throws: (any Error).self) { try LlamaModel(path: copy.path) }
        #expect("\(try #require(error))".contains(copy.file(name)))
    }

    @Test func aTensorThatIsNotInItsShardIsNamed() throws {
        let copy = try ModelFolderCopy(of: "llama-2")
        try copy.change("model.safetensors.index.json") { index in
            var map = index["weight_map"] as? [String: String] ?? [:]
            map["model.norm.weight"] = "model-00001-of-00003.safetensors"
            index["weight_map"] = map
        }
        let error = copy.openingError()
        #expect(error?.code == .damaged)
        #expect(error?.message.contains("model.norm.weight") == true)
    }

    @Test(arguments: ["../model.safetensors", "/etc/passwd", "", ".hidden"])
    func anIndexNamesFilesOfItsFolderOnly(name: String) throws {
        let copy = try ModelFolderCopy(of: "llama-2")
        try copy.change("model.safetensors.index.json") { $0["weight_map"] = ["model.norm.weight": name] }
        #expect(copy.openingError()?.path == copy.file("model.safetensors.index.json"))
    }

    @Test func aTokenizerWithMoreTokensThanTheModelIsRefused() throws {
        let copy = try ModelFolderCopy(of: "llama-3")
        try copy.remove("tokenizer.json")
        try FileManager.default.copyItem(
            atPath: "\(DemoModel.path)/tokenizer.json",
            toPath: copy.file("tokenizer.json")
        )
        let error = copy.openingError()
        #expect(error?.code == .mismatch)
        #expect(error?.path == copy.file("tokenizer.json"))
    }

    @Test func aTokenizerThatDoesNotKnowTheModelsTokensIsRefused() throws {
        let copy = try ModelFolderCopy(of: "llama-3")
        try copy.write(#"{"bos_token": {"content": "<s>"}, "eos_token": null}"#, to: "tokenizer_config.json")
        #expect(copy.openingError()?.code == .mismatch)
        try copy.write(#"{"bos_token": "b", "eos_token": "c"}"#, to: "tokenizer_config.json")
        #expect(copy.openingError() == nil)
    }

    @Test func theFingerprintIsWhatSha256sumPrints() throws {
        // sha256sum config.json model.safetensors | sha256sum
        let metadata = try DemoModel.open().metadata(producer: "test")
        #expect(
            metadata["model.fingerprint"] == "d1fd2f2e95328c30a80591890b78c93196c15d074be577e479e377bc31f6cb48"
        )
        #expect(metadata["model.id"] == "DemoModel")
        #expect(metadata["rope.theta"] == "100000.0")
        #expect(metadata["rope.scaling"] == nil)
        #expect(metadata["producer"] == "test")
    }

    @Test func anyByteOfWeightsChangesTheFingerprint() throws {
        let copy = try ModelFolderCopy(of: "llama-2")
        let before = try LlamaModel(path: copy.path).metadata(producer: "")
        let url = URL(filePath: copy.file("model-00003-of-00003.safetensors"))
        var data = try Data(contentsOf: url)
        data[data.count - 1] ^= 1
        try data.write(to: url)
        let model = try LlamaModel(path: copy.path)
        let after = try model.metadata(producer: "")
        #expect(before["model.fingerprint"] != after["model.fingerprint"])
        let error = #expect(throws: ModelError.self) {
            try model.check(before, geometry: model.configuration.geometry, against: after)
        }
        #expect(error?.code == .mismatch)
        #expect(error?.message.contains("model.fingerprint") == true)
    }

    @Test func scalingIsPartOfTheIdentity() throws {
        func scaling(_ name: String) throws -> String? {
            try LlamaModel(path: ProjectFiles.fixture("models/\(name)")).metadata(producer: "")["rope.scaling"]
        }
        #expect(
            try scaling("llama-3")
                == #"{"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "#
                + #""original_max_position_embeddings": 64, "rope_type": "llama3"}"#
        )
        #expect(try scaling("qwen3-window") == #"{"factor": 2.0, "rope_type": "linear"}"#)
        #expect(
            try scaling("llama-yarn")
                == #"{"beta_fast": 2.0, "factor": 4.0, "mscale": 0.9, "mscale_all_dim": 0.4, "#
                + #""original_max_position_embeddings": 40, "rope_type": "yarn"}"#
        )
        #expect(
            try scaling("llama-dynamic")
                == #"{"factor": 4.0, "original_max_position_embeddings": 36, "rope_type": "dynamic"}"#
        )
        #expect(
            try scaling("mistral-longrope")
                == #"{"factor": 4.0, "long_factor": [1.0, 1.3, 1.9, 2.7, 3.6, 4.0], "#
                + #""original_max_position_embeddings": 36, "rope_type": "longrope", "#
                + #""short_factor": [1.0, 1.05, 1.1, 1.1, 1.2, 1.25]}"#
        )
        #expect(
            try scaling("gemma3")
                == #"{"full_attention": {"factor": 8.0, "rope_theta": 5000.0, "rope_type": "linear"}, "#
                + #""sliding_attention": {"rope_theta": 100.0, "rope_type": "default"}}"#
        )
    }

    // MARK: - Names of tensors

    /// A copy of a model of one weight file whose header is changed.
    private func copy(of name: String, _ change: (String) -> String) throws -> ModelFolderCopy {
        let copy = try ModelFolderCopy(of: name)
        let url = URL(filePath: copy.file("model.safetensors"))
        let bytes = [UInt8](try Data(contentsOf: url))
        let end = 8 + (0..<8).reduce(0) { $0 | Int(bytes[$1]) << (8 * $1) }
        let header = change(String(decoding: bytes[8..<end], as: UTF8.self))
        try Data(SafetensorsBuilder.file(header: header, data: Array(bytes[end...]))).write(to: url)
        return copy
    }

    @Test func weightsOfTheModelWithoutItsHeadAreRead() async throws {
        let tokens: [Int32] = [1, 5, 9, 11]
        func logits(_ path: String) async throws -> [Float] {
            let decoder = TransformerDecoder(model: try LlamaModel(path: path), threadCount: 1)
            return try await decoder.logits(tokens)
        }
        let copy = try copy(of: "llama-3") { $0.replacing("\"model.", with: "\"") }
        #expect(try await logits(copy.path) == logits(ProjectFiles.fixture("models/llama-3")))
        // Without a head, and with a configuration that says that there is one.
        try copy.change("config.json") { $0["tie_word_embeddings"] = false }
        #expect(copy.openingError()?.message == "the weights have no tensor 'lm_head.weight'")
    }

    @Test("the text of a model that has other parts is read", arguments: ["language_model.", "model.language_model."])
    func partsOfModels(prefix: String) async throws {
        let copy = try copy(of: "gemma3") {
            $0.replacing("\"model.", with: prefix == "language_model." ? "\"language_model.model." : "\"\(prefix)")
        }
        try copy.change("config.json") { object in
            var text = object
            text["eos_token_id"] = nil
            object = ["model_type": "gemma3", "text_config": text, "eos_token_id": [1, 5], "vision_config": [:]]
        }
        let model = try LlamaModel(path: copy.path)
        let plain = try LlamaModel(path: ProjectFiles.fixture("models/gemma3"))
        #expect(model.configuration == plain.configuration)
        let tokens: [Int32] = [1, 5, 9, 11]
        #expect(
            try await TransformerDecoder(model: model, threadCount: 1).logits(tokens)
                == TransformerDecoder(model: plain, threadCount: 1).logits(tokens)
        )
        try copy.change("config.json") { $0["text_config"] = nil }
        #expect(copy.openingError()?.message.contains("text_config") == true)
    }

    @Test(arguments: [
        ("weight", "U32"), ("weight", "U8"), ("weight", "F8_E4M3"), ("qweight", "I32"), ("weight_packed", "I32"),
    ]) func quantizedWeightsAreNamedByTheirTensors(part: String, type: String) throws {
        let name = "model.layers.0.self_attn.q_proj"
        let copy = try copy(of: "llama-3") { header in
            // The shape that takes as many bytes.
            let entry = /"model\.layers\.0\.self_attn\.q_proj\.weight":\{[^}]*\}/
            return header.replacing(entry) { match in
                let offsets = match.output.split(separator: "[").last?.prefix { $0 != "]" } ?? ""
                let numbers = offsets.split(separator: ",").compactMap { Int($0.trimmingCharacters(in: .whitespaces)) }
                let size = ["U8", "F8_E4M3"].contains(type) ? 1 : 4
                return #""\#(name).\#(part)":{"dtype":"\#(type)","shape":[\#((numbers[1] - numbers[0]) / size)],"#
                    + #""data_offsets":[\#(numbers[0]),\#(numbers[1])]}"#
            }
        }
        let error = copy.openingError()
        #expect(error?.code == .unsupported)
        #expect(error?.path == copy.file("model.safetensors"))
        #expect(error?.message.contains("tensor '\(name).\(part)'") == true, "\(error?.message ?? "it was read")")
        #expect(error?.message.contains("quantized weights") == true)
    }

    @Test func aTensorThatTheIndexNamesTwiceIsRefused() throws {
        let copy = try ModelFolderCopy(of: "llama-2")
        let name = "model.safetensors.index.json"
        let text = try String(contentsOfFile: copy.file(name), encoding: .utf8)
        let first = #""model.norm.weight": "model-00001-of-00003.safetensors","#
        let changed = text.replacing(/"weight_map": *\{/) { $0.output + first }
        #expect(changed != text)
        try copy.write(changed, to: name)
        let error = copy.openingError()
        #expect(error?.path == copy.file(name))
        #expect(
            error?.message.hasPrefix("weight_map.model.norm.weight: is there twice") == true,
            "\(error?.message ?? "")"
        )
    }

    // File systems of macOS have one file of both names.
    #if os(Linux)
        @Test func anIndexMayNameFilesThatUnicodeCallsTheSame() throws {
            let copy = try ModelFolderCopy(of: "llama-2")
            let name = "model.safetensors.index.json"
            var text = try String(contentsOfFile: copy.file(name), encoding: .utf8)
            for (number, spelling) in [(1, "\u{E9}"), (2, "e\u{301}")] {
                let file = "model-0000\(number)-of-00003.safetensors"
                try FileManager.default.moveItem(atPath: copy.file(file), toPath: copy.file("\(spelling).safetensors"))
                text = text.replacing(file, with: "\(spelling).safetensors")
            }
            try copy.write(text, to: name)
            #expect(copy.openingError() == nil)
        }
    #endif
}
