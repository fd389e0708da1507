import ByteStorage
import EngineFormats
import Foundation
import LlamaDecoder
import TestSupport
import Testing
import ThinkCompress

/// Models in GGUF files: Tools/make-gguf-fixtures makes those of Tests/Fixtures/gguf.
@Suite struct GGUFModelTests {
    static let models = ["llama-linear", "mistral-longrope", "qwen2", "qwen3", "gemma3"]

    private static func fixture(_ name: String) -> String { ProjectFiles.fixture("gguf/\(name).gguf") }

    /// What is read of a file that was built, or why it is refused.
    private static func open(_ builder: GGUFBuilder) throws -> LlamaModel {
        let folder = try TemporaryFolder()
        try builder.write(to: folder.file("model.gguf"))
        return try LlamaModel(path: folder.file("model.gguf"))
    }

    private static func refusal(
        _ architecture: String = "llama",
        _ change: (inout GGUFBuilder) -> Void
    ) throws -> ModelError? {
        var builder = GGUFBuilder.model(architecture)
        change(&builder)
        return #expect(throws: ModelError.self) { try open(builder) }
    }

    // MARK: - Arithmetic

    @Test(arguments: models) func logitsAreThoseOfTheFolder(name: String) async throws {
        let expected = try SafetensorsFile(
            MappedFile.bytes(path: ProjectFiles.fixture("models/\(name)/expected.safetensors"))
        )
        let decoder = TransformerDecoder(model: try LlamaModel(path: Self.fixture(name)))
        let logits = try await decoder.logits(try expected.integers("tokens"))
        #expect(try relativeError(logits, expected.floats("logits")) < GoldenLogitsTests.tolerance)
    }

    @Test func quantizedWeightsAreComputedAsTheyLie() async throws {
        let expected = try SafetensorsFile(
            MappedFile.bytes(path: ProjectFiles.fixture("gguf/llama-2-quantized.expected.safetensors"))
        )
        let decoder = TransformerDecoder(model: try LlamaModel(path: Self.fixture("llama-2-quantized")))
        let tokens = try expected.integers("tokens")
        #expect(
            try await relativeError(decoder.logits(tokens), expected.floats("logits")) < GoldenLogitsTests.tolerance
        )
        // Token by token, which other kernels compute.
        var cache = try await decoder.prefill([tokens[0]], recipe: try Recipe("f32")).cache
        var logits: [Float] = []
        for token in tokens.dropFirst() { logits += try decoder.extend(&cache, with: [token]) }
        #expect(try relativeError(logits, expected.floats("logits").suffix(logits.count)) < GoldenLogitsTests.tolerance)
    }

    /// Keys and values are those of the folder, channel by channel: rows that the file has interleaved are not.
    @Test(arguments: models) func cachesAreThoseOfTheFolder(name: String) async throws {
        let tokens: [Int32] = (0..<40).map { $0 * 7 % 60 }
        func cache(_ path: String) async throws -> KVCache {
            let decoder = TransformerDecoder(model: try LlamaModel(path: path), threadCount: 1)
            return try await decoder.fullCache(tokens, elementType: .float32)
        }
        let (left, right) = try await (cache(Self.fixture(name)), cache(ProjectFiles.fixture("models/\(name)")))
        func floats(_ tensor: KVTensor) -> [Float] {
            let bytes = tensor.packedBytes
            return (0..<bytes.count / 4).map { index in
                Float(bitPattern: (0..<4).reduce(0) { $0 | UInt32(bytes[index * 4 + $1]) << (8 * UInt32($1)) })
            }
        }
        for (left, right) in zip(left.layers, right.layers) {
            #expect(relativeError(floats(left.keys), floats(right.keys)) < GoldenLogitsTests.tolerance)
            #expect(relativeError(floats(left.values), floats(right.values)) < GoldenLogitsTests.tolerance)
        }
    }

    // MARK: - Configuration

    @Test(arguments: models) func theConfigurationIsThatOfTheFolder(name: String) throws {
        let left = try LlamaModel(path: Self.fixture(name)).configuration
        let right = try LlamaModel(path: ProjectFiles.fixture("models/\(name)")).configuration
        #expect(left.vocabularySize == right.vocabularySize)
        #expect(left.geometry == right.geometry)
        #expect(left.slidingWindows == right.slidingWindows)
        #expect(left.maximumPositions == right.maximumPositions)
        #expect(left.normEpsilon == right.normEpsilon)
        #expect(left.tiesEmbeddings == right.tiesEmbeddings)
        #expect(left.hasQueryKeyValueBias == right.hasQueryKeyValueBias)
        #expect(left.hasOutputBias == right.hasOutputBias)
        #expect(left.hasFeedForwardBias == right.hasFeedForwardBias)
        #expect(left.beginToken == right.beginToken)
        #expect(left.endTokens == right.endTokens)
        #expect(left.rotary.base == right.rotary.base)
        #expect(left.localRotary?.base == right.localRotary?.base)
        for count in [1, 100] {
            let pairs = zip(left.rotary.frequencies(tokenCount: count), right.rotary.frequencies(tokenCount: count))
            #expect(pairs.allSatisfy { abs($0 - $1) <= 1e-6 * $1 })
        }
    }

    @Test func factorsOfEachPairAreRead() throws {
        var builder = GGUFBuilder.model()
        builder.tensors.append(.init("rope_freqs.weight", [2], floats: [1, 8]))
        let plain = try Self.open(.model()).configuration.rotary.frequencies(tokenCount: 1)
        let folder = try TemporaryFolder()
        try builder.write(to: folder.file("model.gguf"))
        let model = try LlamaModel(path: folder.file("model.gguf"))
        #expect(model.configuration.rotary.frequencies(tokenCount: 1) == [plain[0], plain[1] / 8])
        #expect(
            try model.metadata(producer: "")["rope.scaling"] == #"{"factors": [1.0, 8.0], "rope_type": "default"}"#
        )
    }

    @Test func yarnIsReadAsTransformersSaysIt() throws {
        var builder = GGUFBuilder.model("qwen2")
        builder["qwen2.rope.scaling.type"] = .string("yarn")
        builder["qwen2.rope.scaling.factor"] = .float32(4)
        builder["qwen2.rope.scaling.original_context_length"] = .uint32(16)
        builder["qwen2.rope.scaling.yarn_beta_fast"] = .float32(3)
        let rotary = try Self.open(builder).configuration.rotary
        guard case .yarn(let yarn) = rotary.scaling else {
            Issue.record("the scaling is \(rotary.scaling)")
            return
        }
        #expect(yarn.factor == 4 && yarn.originalPositions == 16)
        #expect(yarn.fastRotations == 3 && yarn.slowRotations == 1 && yarn.attentionFactor == nil)
    }

    @Test func layersWithAWindowMayBeListed() throws {
        var builder = GGUFBuilder.model("gemma3")
        builder["gemma3.attention.sliding_window_pattern"] = .bools([true, false])
        #expect(try Self.open(builder).configuration.slidingWindows == [4, nil])
        builder["gemma3.attention.sliding_window_pattern"] = .bools([true, true])
        #expect(try Self.open(builder).configuration.slidingWindows == [4, 4])
        builder["gemma3.attention.sliding_window"] = nil
        #expect(try Self.open(builder).configuration.slidingWindows == [nil, nil])
        let error = try Self.refusal("gemma3") {
            $0["gemma3.attention.sliding_window_pattern"] = .bools([false, true])
        }
        #expect(error?.code == .unsupported)
        #expect(error?.message.contains("'gemma3.attention.sliding_window_pattern' is not supported") == true)
    }

    @Test(arguments: ["llama", "qwen2", "qwen3", "gemma3"]) func smallModelsAreComputed(architecture: String)
        async throws
    {
        let model = try Self.open(.model(architecture))
        #expect(model.configuration.endTokens == [29])
        let decoder = TransformerDecoder(model: model, threadCount: 1)
        let logits = try await decoder.logits(try model.tokens(of: "abc"))
        #expect(logits.allSatisfy { $0.isFinite })
    }

    @Test func aHeadOfItsOwnIsUsed() async throws {
        var builder = GGUFBuilder.model()
        let embedding = builder[tensor: "token_embd.weight"]
        func logits(_ builder: GGUFBuilder) async throws -> [Float] {
            try await TransformerDecoder(model: try Self.open(builder), threadCount: 1).logits([1, 2])
        }
        let tied = try await logits(builder)
        builder.tensors.append(
            .init("output.weight", dimensions: embedding.dimensions, bytes: embedding.bytes.reversed())
        )
        #expect(try await logits(builder) != tied)
        #expect(try !Self.open(builder).configuration.tiesEmbeddings)
    }

    // MARK: - Identity

    @Test func theIdentityIsOfTheFile() throws {
        let folder = try TemporaryFolder()
        let builder = GGUFBuilder.model()
        func metadata(_ builder: GGUFBuilder, _ name: String) throws -> [String: String] {
            try builder.write(to: folder.file(name))
            return try LlamaModel(path: folder.file(name)).metadata(producer: "test")
        }
        let first = try metadata(builder, "Tiny-F32.gguf")
        #expect(first["model.id"] == "Tiny-F32")
        #expect(first["rope.theta"] == "10000.0")
        #expect(first["rope.scaling"] == nil)
        // The file is the same by any other name.
        let renamed = try metadata(builder, "model.bin")
        #expect(renamed["model.id"] == "model.bin")
        #expect(renamed["model.fingerprint"] == first["model.fingerprint"])
        #expect(first["model.fingerprint"]?.utf8.count == 64)
        // Other weights are another model with the same tokenizer.
        var changed = builder
        changed[tensor: "blk.1.ffn_up.weight"].bytes[0] ^= 1
        let other = try metadata(changed, "a.gguf")
        #expect(other["model.fingerprint"] != first["model.fingerprint"])
        #expect(other["tokenizer.sha256"] == first["tokenizer.sha256"])
        // A chat template says nothing of tokens, and other tokens do.
        changed["tokenizer.chat_template"] = .string("{{ x }}")
        #expect(try metadata(changed, "b.gguf")["tokenizer.sha256"] == first["tokenizer.sha256"])
        changed["tokenizer.ggml.bos_token_id"] = .uint32(3)
        #expect(try metadata(changed, "c.gguf")["tokenizer.sha256"] != first["tokenizer.sha256"])
    }

    // MARK: - What is refused

    @Test func otherFilesAreRefusedByName() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("model.bin")
        try Data("GGML and so on".utf8).write(to: URL(filePath: path))
        let error = #expect(throws: FileError.self) { try LlamaModel(path: path) }
        #expect(
            error?.description
                == "\(path): is neither a directory nor a GGUF file; pass the directory of a model, or a GGUF file"
        )
    }

    struct Refusal: Sendable, CustomTestStringConvertible {
        let message: String
        var code = ModelError.Code.unsupported
        var architecture = "llama"
        let change: @Sendable (inout GGUFBuilder) -> Void

        var testDescription: String { message }

        init(
            _ message: String,
            _ code: ModelError.Code = .unsupported,
            of architecture: String = "llama",
            _ change: @escaping @Sendable (inout GGUFBuilder) -> Void
        ) {
            self.message = message
            self.code = code
            self.architecture = architecture
            self.change = change
        }
    }

    private static let refusals = [
        Refusal(
            "metadata 'general.architecture' is 'mamba', which is not supported; supported are llama, qwen2, qwen3, gemma3"
        ) {
            $0["general.architecture"] = .string("mamba")
        },
        Refusal("metadata 'general.architecture' is missing; download it again", .damaged) {
            $0["general.architecture"] = nil
        },
        Refusal("metadata 'general.type' is 'adapter', which is not a model by itself; pass the file of the model") {
            $0["general.type"] = .string("adapter")
        },
        Refusal(
            "is 3: the model is split over so many files, which is not supported; join them with llama-gguf-split --merge"
        ) {
            $0["split.count"] = .uint16(3)
        },
        Refusal("the file has no tensors, as files of vocabularies have none; pass the file of a model") {
            $0.tensors = []
        },
        Refusal(
            "tensor 'blk.0.attn_q.weight': has the type IQ2_XXS, which is not supported; supported are F32, F16, BF16"
        ) {
            $0[tensor: "blk.0.attn_q.weight"].type = 16
        },
        Refusal("the file has no tensor 'blk.1.ffn_up.weight'; take the model's own file", .damaged) {
            $0.removeTensor("blk.1.ffn_up.weight")
        },
        Refusal(
            "tensor 'blk.0.attn_k.weight' has the shape [8, 8], and by the metadata it must be [4, 8]; take the model's own file",
            .damaged
        ) {
            $0[tensor: "blk.0.attn_k.weight"] = .init(
                "blk.0.attn_k.weight",
                [8, 8],
                floats: [Float](repeating: 1, count: 64)
            )
        },
        Refusal("tensor 'blk.1.attn_q.bias' is there, and the metadata says that there is no bias") {
            $0.tensors.append(.init("blk.1.attn_q.bias", [8], floats: [Float](repeating: 1, count: 8)))
        },
        Refusal(
            "metadata 'llama.attention.head_count' is 3, and llama.embedding_length 8 is no multiple of it",
            .damaged
        ) {
            $0["llama.attention.head_count"] = .uint32(3)
        },
        Refusal("llama.attention.head_count and llama.attention.head_count_kv", .damaged) {
            $0["llama.attention.head_count_kv"] = .uint32(3)
        },
        Refusal("llama.attention.key_length 3 is odd, so that it can't be rotated", .damaged) {
            $0["llama.attention.key_length"] = .uint32(3)
            $0["llama.attention.value_length"] = .uint32(3)
        },
        Refusal("tensor 'rope_freqs.weight': is not supported beside llama.rope.scaling.type 'linear'") {
            $0["llama.rope.scaling.factor"] = .float32(2)
            $0.tensors.append(.init("rope_freqs.weight", [2], floats: [1, 8]))
        },
        Refusal("tensor 'rope_freqs.weight': has the type F16 and the shape [2], must be F32 and a list", .damaged) {
            $0.tensors.append(.init("rope_freqs.weight", type: 1, dimensions: [2], bytes: [0, 0, 0, 0]))
        },
        Refusal("llama.rope.scaling: the rotary factors has 3 numbers", .damaged) {
            $0.tensors.append(.init("rope_freqs.weight", [3], floats: [1, 8, 8]))
        },
        Refusal("llama.rope.scaling: short_factor is missing", .damaged) {
            $0["llama.rope.scaling.type"] = .string("longrope")
        },
    ]

    @Test(arguments: refusals) func refusalsNameWhatIsWrong(refusal: Refusal) throws {
        let error = try Self.refusal(refusal.architecture, refusal.change)
        #expect(error?.code == refusal.code, "\(error?.description ?? "")")
        #expect(error?.message.contains(refusal.message) == true, "\(error?.description ?? "")")
        #expect(error?.path?.hasSuffix("model.gguf") == true)
    }

    @Test(arguments: [1, 2, 3] as [UInt64]) func damageGivesAnErrorOrAModel(seed: UInt64) async throws {
        let folder = try TemporaryFolder()
        let builder = GGUFBuilder.model(["llama", "qwen3", "gemma3"][Int(seed) - 1])
        let content = builder.file
        var random = SplitMix64(seed: seed)
        for round in 0..<150 {
            var damaged = content
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                let place = Int.random(in: 0..<builder.header.count, using: &random)
                damaged[place] =
                    Bool.random(using: &random)
                    ? UInt8.random(in: 0...255, using: &random)
                    : damaged[place] ^ 1 << UInt8.random(in: 0..<8, using: &random)
            }
            // A new file each time: models map their files.
            let path = folder.file("\(round).gguf")
            try Data(damaged).write(to: URL(filePath: path))
            guard let model = try? LlamaModel(path: path) else { continue }
            _ = try? await TransformerDecoder(model: model, threadCount: 1).logits([1, 2, 3])
        }
    }
}
