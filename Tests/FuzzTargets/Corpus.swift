import Foundation
import KVCacheEvaluation
import LlamaDecoder
import TestSupport
import ThinkCompress

/// Valid inputs of each parser: the formats' vectors, the fixtures, and small ones made here.
public enum Corpus {
    /// Larger inputs make mutations rare where they matter, and every one of them slow.
    private static let largestInput = 10_000

    public static func inputs(of target: ParserTarget) async throws -> [[UInt8]] {
        switch target {
        case .snapshot:
            try await files(in: "Formats/Vectors/valid", suffix: ".tkv") + [snapshot()]
                + files(in: "Formats/Vectors/archives", suffix: ".tkv")
        case .dump:
            try files(in: "Formats/Vectors/valid", suffix: ".safetensors", except: ".expected.safetensors")
                + [SafetensorsBuilder(cache()).file]
        case .profile: try [SafetensorsBuilder(cache()).file, profile()]
        case .tokenizer: try files(in: "Tests/Fixtures/tokenizers", suffix: ".json", except: ".expected.json")
        case .text: [UInt8](0..<12).map { [$0] + Array(text.utf8) }
        case .configuration:
            // Most of the model that weights are beside, as the others are refused once they are read.
            try ["llama-3", "llama-3", "llama-3", "llama-3", "llama-2", "llama-linear", "mistral", "qwen2", "qwen3"].map
            {
                try fileBytes(ProjectFiles.fixture("models/\($0)/config.json"))
            }
        case .generation:
            [#"{"bos_token_id": 1, "eos_token_id": [2, 3]}"#, #"{"eos_token_id": 3}"#].map { Array($0.utf8) }
        case .tokenizerSettings:
            [#"{"add_bos_token": true, "bos_token": {"content": "a"}, "eos_token": "b"}"#].map { Array($0.utf8) }
                + [try fileBytes(ProjectFiles.root.appending(path: "Tools/DemoModel/tokenizer_config.json").path)]
        case .weightIndex: [try fileBytes(ProjectFiles.fixture("models/llama-2/model.safetensors.index.json"))]
        case .weights: [try fileBytes(ProjectFiles.fixture("models/llama-3/model.safetensors"))]
        case .gguf:
            ["llama", "qwen2", "qwen3", "gemma3"].map { GGUFBuilder.model($0).file } + [modelByScores().file]
        case .journal: [try journal()]
        case .profileJournal: [try profileJournal()]
        case .recipe:
            [
                "f16", "kivi(bits=2,residual=32)", "think(keys=0.5,restore=mean)+kivi(bits=2,residual=32)",
                "think(keys=0.4,values=0.2)+kivi(keys=4,values=2,group=64)", "kivi(bits=8,group=128,residual=0)",
                "h2o(keep=0.5)+balanced", "streaming(sinks=0,recent=9)+keydiff(tokens=40,kernel=5)",
                "archive(bits=4,recent=0)", "archive(step=0.03,recent=9,sinks=1,observe=4)", "archive(ratio=1.5)",
                "archive(quality=small,recent=32)",
            ].map { Array($0.utf8) }
        }
    }

    private static func files(in folder: String, suffix: String, except: String? = nil) throws -> [[UInt8]] {
        let path = ProjectFiles.root.appending(path: folder).path
        return try FileManager.default.contentsOfDirectory(atPath: path).sorted()
            .filter { name in name.hasSuffix(suffix) && !(except.map { name.hasSuffix($0) } ?? false) }
            .map { try fileBytes("\(path)/\($0)") }
            .filter { $0.count <= largestInput }
    }

    // MARK: - Caches

    /// A small cache with queries.
    static func cache() throws -> KVCache {
        var maker = TestCache()
        (maker.layers, maker.kvHeads, maker.queryHeads) = (2, 1, 2)
        (maker.headDimension, maker.tokens, maker.window) = (8, 70, 32)
        return try maker.makeQuickly()
    }

    /// A snapshot with every section, compressed by zstd.
    private static func snapshot() async throws -> [UInt8] {
        let folder = try TemporaryFolder()
        let compressed = try await CompressedCache(
            compressing: cache(),
            recipe: Recipe("think(keys=0.5,restore=mean)+kivi(bits=2,residual=32)")
        )
        try await SnapshotWriter(compressionLevel: 3).write(compressed, to: folder.file("a.tkv"))
        return try fileBytes(folder.file("a.tkv"))
    }

    private static func profile() throws -> [UInt8] {
        let folder = try TemporaryFolder()
        let path = folder.file("profile.safetensors")
        let geometry = try cache().geometry
        let bases = TestBases.layers(of: geometry, seed: 1)
        let layers = zip(geometry.layers, bases).map { shape, bases in
            let keys = [Float](repeating: 1, count: shape.kvHeads * shape.keyDimension)
            let values = [Float](repeating: 2, count: shape.kvHeads * shape.valueDimension)
            return LayerProfile(
                meanSquaredQueries: keys,
                sensitivity: LayerSensitivity(keys: keys, values: values, valueVariances: values),
                outputWeights: values,
                bases: bases
            )
        }
        try ModelProfile.write(layers, geometry: geometry, metadata: [:], to: path, replacingExisting: false)
        return try fileBytes(path)
    }

    /// What restores the archives that have bases.
    static let profiles = ["heads", "layer", "layers"].compactMap { name in
        try? SafetensorsFile(MappedFile.bytes(path: ProjectFiles.vector("profiles/\(name).safetensors")))
    }

    // MARK: - Text and models

    static let text = "Hello, wörld 123! \u{1F600} a\u{301}\n\t  don't <s> <|endoftext|> 你好"

    /// One tokenizer of each kind.
    static let tokenizers = ["gpt2", "gpt4o", "llama2", "llama3", "mistral", "qwen2", "metaspace-never", "decoders"].map
    {
        ProjectFiles.fixture("tokenizers/\($0).json")
    }

    /// Puts a model into a folder in which one file is to be replaced.
    static func writeModel(for target: ParserTarget, to folder: String) throws {
        let source = ProjectFiles.fixture("models/\(target == .weightIndex ? "llama-2" : "llama-3")")
        for name in try FileManager.default.contentsOfDirectory(atPath: source) where !name.hasPrefix("expected") {
            try FileManager.default.copyItem(atPath: "\(source)/\(name)", toPath: "\(folder)/\(name)")
        }
    }

    // MARK: - Journals

    static var subject: EvaluationJournal.Subject {
        let metadata = ["model.id": "m", "model.fingerprint": "f", "tokenizer.sha256": "k"]
        let text: [UInt8] = [1]
        return .init(
            metadata: metadata,
            text: "t",
            textBytes: text.span.bytes,
            prompts: .plain,
            seed: 0,
            profile: "p"
        )
    }

    /// Queries alone, as all else takes long to measure where a journal lacks it.
    static let profileSettings = ProfileSettings(
        metadata: ["model.id": "m", "model.fingerprint": "f", "tokenizer.sha256": "k"],
        texts: ["d"],
        effort: .queries,
        context: 512,
        prefix: 0,
        seed: 0
    )

    /// The measurement that `profileSettings` are of.
    static func profileMeasurement() throws -> ProfileMeasurement {
        let model = try LlamaModel(path: ProjectFiles.fixture("models/llama-3"))
        let decoder = TransformerDecoder(model: model, threadCount: 1)
        return try ProfileMeasurement(decoder: decoder, texts: ["ab"], settings: profileSettings)
    }

    private static func profileJournal() throws -> [UInt8] {
        let folder = try TemporaryFolder()
        let path = folder.file("a.journal")
        _ = try ProfileJournal(path: path, settings: profileSettings)
        let numbers = "[\([String](repeating: "0.5", count: 64).joined(separator: ","))]"
        let lines = [
            #"{"queries":{"piece":0,"squares":[\#(numbers),\#(numbers)]}}"#,
            #"{"variances":{"layers":[[1,0],[]],"prefix":1}}"#,
            #"{"noise":{"prefix":0,"probe":{"band":1,"head":0,"isOfKeys":true,"layer":0},"sensitivity":0.25}}"#,
        ]
        return try fileBytes(path) + lines.flatMap { Array("\($0)\n".utf8) }
    }

    /// A model whose tokenizer merges by scores, and has bytes and a space before texts.
    private static func modelByScores() -> GGUFBuilder {
        var model = GGUFBuilder.model()
        let tokens = ["<unk>", "<s>", "</s>", "▁"] + (97...122).map { String(format: "<0x%02X>", $0) }
        model["tokenizer.ggml.model"] = .string("llama")
        model["tokenizer.ggml.pre"] = nil
        model["tokenizer.ggml.merges"] = nil
        model["tokenizer.ggml.tokens"] = .strings(tokens)
        model["tokenizer.ggml.token_type"] = .int32s(
            [2, 3, 3, 1] + [Int32](repeating: 6, count: tokens.count - 4)
        )
        model["tokenizer.ggml.scores"] = .float32s(tokens.indices.map { -Float($0) })
        model["tokenizer.ggml.add_space_prefix"] = .bool(true)
        return model
    }

    private static func journal() throws -> [UInt8] {
        let folder = try TemporaryFolder()
        let journal = try EvaluationJournal(path: folder.file("a.jsonl"), subject: subject)
        let sums = """
            {"fileBytes": 4000, "payloadBytes": 3500, "values": 8000, "tokens": 16, "divergence": 0.25, "agreements": 15,
            "surprise": 40.5, "fullSurprise": 40, "attentionError": 0.1, "layerAttentionErrors": [0.1, 0.2]}
            """
        let outcome = TrialOutcome.text(sums: try JSONDecoder().decode(TextOutcome.self, from: Data(sums.utf8)))
        for recipe in ["f16", "kivi(bits=2)", "auto(bits=2.4)"] {
            let chosen = recipe.hasPrefix("auto") ? "think(bits=2.55,values=2.25)" : nil
            for trial in 0..<2 {
                let needle = EvaluationTask.needles(context: 256, depths: [0, 0.5])
                let recall = EvaluationTask.recall(context: 256, pairs: 4, questions: 1)
                let text = EvaluationTask.text(prefix: 64, continuation: 16)
                try journal.add(outcome, for: TrialKey(task: text, trial: trial, recipe: recipe), chosen: chosen)
                try journal.add(
                    .answers(unseen: [true, false], seen: [false, false]),
                    for: TrialKey(task: needle, trial: trial, recipe: recipe),
                    chosen: chosen
                )
                try journal.add(
                    .answers(unseen: [false], seen: [true]),
                    for: TrialKey(task: recall, trial: trial, recipe: recipe)
                )
            }
        }
        return try fileBytes(folder.file("a.jsonl"))
    }
}
