import Foundation
import TestSupport
import Testing
import ThinkCompress

/// `snapshot --model` and `generate`, as a user runs them.
@Suite(.serialized) struct GenerationCommandTests {
    static let model = ProjectFiles.root.appending(path: "Tools/DemoModel").path
    static let question = " What is the magic number for lantern? The magic number for lantern is "

    private let folder: TemporaryFolder
    private var text: String { folder.file("text.txt") }
    private var snapshot: String { folder.file("p.tkv") }

    init() throws {
        folder = try TemporaryFolder()
        try Self.writeText(to: text)
    }

    /// Writes some text of a manual with a number to be asked for in its middle.
    ///
    /// - Parameter rest: characters after the number.
    static func writeText(to path: String, rest: Int = 700) throws {
        let manual = try String(contentsOfFile: "\(model)/text/python-manual.txt", encoding: .utf8)
        let needle = " The magic number for lantern is 48213."
        try Data((manual.prefix(700) + needle + manual.dropFirst(700).prefix(rest)).utf8).write(to: URL(filePath: path))
    }

    private func makeSnapshot(codec: String = "think(keys=0.4)+kivi(bits=2)", model: String = model) async throws {
        let result = try await BuiltCommand.run(
            "snapshot",
            "--model",
            model,
            "--prompt-file",
            text,
            "-o",
            snapshot,
            "--codec",
            codec,
            "--force"
        )
        try #require(result.status == 0, "\(result.errors)")
    }

    private func generate(_ arguments: String..., model: String = model) async throws -> Subprocess.Result {
        try await Subprocess.run(try BuiltCommand.found(), ["generate", "--model", model] + arguments)
    }

    // MARK: - What works

    /// Layers of two kinds, the whole way: most hold the last 9 tokens of 122.
    @Test func aModelWithSlidingWindowsGoesTheWholeWay() async throws {
        let model = ProjectFiles.fixture("models/gemma3")
        let prompt = String(repeating: "the quick brown fox jumps over the lazy dog 0123456789 and on", count: 2)
        let dump = folder.file("dump.safetensors")
        func run(_ arguments: String...) async throws -> Subprocess.Result {
            let result = try await Subprocess.run(try BuiltCommand.found(), arguments)
            try #require(result.status == 0, "\(result.errors)")
            return result
        }
        func snapshot(_ codec: String, _ path: String) async throws {
            _ = try await run(
                "snapshot",
                "--model",
                model,
                "--prompt",
                prompt,
                "-o",
                path,
                "--codec",
                codec,
                "--force"
            )
        }
        try await snapshot("f16", self.snapshot)
        _ = try await run("restore", self.snapshot, "-o", dump)
        let exact = try BuiltCommandTests.json(try await run("compare", dump, self.snapshot, "--json"))
        #expect(exact["keyError"] as? Double == 0 && exact["valueError"] as? Double == 0)
        try await snapshot("think(keys=0.5)+kivi(bits=8,residual=0)", self.snapshot)

        let inspection = try BuiltCommandTests.json(try await run("inspect", self.snapshot, "--json"))
        let layers = try #require(inspection["layerShapes"] as? [[String: Any]])
        #expect(layers.map { $0["heldTokens"] as? Int } == [9, 9, 9, 9, 9, 122, 9])
        #expect(layers.map { $0["held"] as? String } == ["last", "last", "last", "last", "last", "all", "last"])
        #expect(try await run("verify", self.snapshot).output == "\(self.snapshot): sound\n")
        let lossy = try BuiltCommandTests.json(try await run("compare", dump, self.snapshot, "--json"))
        let error = try #require(lossy["keyError"] as? Double)
        #expect(error > 0 && error < 0.8)
        let restored = try await BuiltCommand.run("restore", self.snapshot, "-o", folder.file("part"), "--tokens", "20")
        BuiltCommandTests.expectBadInput(restored, naming: self.snapshot, "can be restored whole only")

        let more = try await generate(
            "--snapshot",
            self.snapshot,
            "--prompt",
            " 42",
            "--max-tokens",
            "5",
            "--json",
            model: model
        )
        let report = try BuiltCommandTests.json(more)
        #expect(report["reusedTokens"] as? Int == 122 && report["promptTokens"] as? Int == 125)
        #expect(more.errors == "")
        let on = try await generate("--snapshot", self.snapshot, "--max-tokens", "5", "--json", model: model)
        #expect(try BuiltCommandTests.json(on)["reusedTokens"] as? Int == 122)
        #expect(on.errors == "")
        try Data((prompt.prefix(50) + " 42").utf8).write(to: URL(filePath: text))
        let other = try await generate(
            "--snapshot",
            self.snapshot,
            "--prompt-file",
            text,
            "--max-tokens",
            "1",
            model: model
        )
        #expect(other.status == 0)
        #expect(
            other.errors.hasPrefix(
                "the prompt is not all of the snapshot's text and more, and the snapshot can be used whole only, as layer 0 "
                    + "does not hold all tokens, so it was read from its beginning\n"
            ),
            "\(other.errors)"
        )
    }

    @Test func aSnapshotAnswersInANewProcess() async throws {
        try await makeSnapshot()
        let result = try await generate(
            "--snapshot",
            snapshot,
            "--prompt-file",
            text,
            "--prompt",
            Self.question,
            "--max-tokens",
            "4"
        )
        #expect(result.status == 0, "\(result.errors)")
        #expect(result.output.hasPrefix("48213."))
        for words in ["from the snapshot", "first token after", "tokens per second", "cache:", "peak memory:"] {
            #expect(result.errors.contains(words), "\(result.errors)")
        }
    }

    @Test func jsonHasWhatTheFormatSays() async throws {
        try await makeSnapshot()
        let json = try BuiltCommandTests.json(
            try await generate(
                "--snapshot",
                snapshot,
                "--prompt-file",
                text,
                "--prompt",
                Self.question,
                "--max-tokens",
                "4",
                "--json"
            )
        )
        #expect(
            Set(json.keys) == [
                "text", "promptTokens", "reusedTokens", "newTokens", "openingTime", "timeToFirstToken",
                "tokensPerSecond", "cacheBytes", "peakMemoryBytes",
            ]
        )
        let (prompt, reused) = (try #require(json["promptTokens"] as? Int), try #require(json["reusedTokens"] as? Int))
        #expect(reused > 300 && reused < prompt && prompt - reused < 40)
        #expect((json["text"] as? String)?.hasPrefix("48213") == true)
        #expect(json["newTokens"] as? Int == 4)
    }

    @Test func anExactSnapshotGivesTheSameText() async throws {
        try await makeSnapshot(codec: "f16")
        let with = try await generate(
            "--snapshot",
            snapshot,
            "--prompt-file",
            text,
            "--prompt",
            " The program",
            "--max-tokens",
            "40"
        )
        let without = try await generate("--prompt-file", text, "--prompt", " The program", "--max-tokens", "40")
        #expect(with.output == without.output && without.output.count > 40)
    }

    @Test func theSnapshotOfAModelSaysWhatItIsOf() async throws {
        try await makeSnapshot()
        let inspection = try BuiltCommandTests.json(try await BuiltCommand.run("inspect", snapshot, "--json"))
        let metadata = try #require(inspection["metadata"] as? [String: String])
        #expect(
            Set(metadata.keys) == ["model.id", "model.fingerprint", "tokenizer.sha256", "rope.theta", "producer"]
        )
        let quality = try #require(inspection["quality"] as? [String: Double])
        #expect((0.05...0.6).contains(quality["attentionError"] ?? 0))
        #expect(try await BuiltCommand.run("verify", snapshot).status == 0)
    }

    @Test func samplingFollowsTheSeed() async throws {
        func text(seed: String) async throws -> String {
            try await generate(
                "--prompt",
                "The",
                "--max-tokens",
                "12",
                "--temperature",
                "1.2",
                "--top-p",
                "0.9",
                "--seed",
                seed
            ).output
        }
        let first = try await text(seed: "1")
        #expect(first == (try await text(seed: "1")))
        #expect(first != (try await text(seed: "2")))
    }

    // MARK: - What is refused

    @Test func aSnapshotOfAnotherModelIsRefused() async throws {
        let other = ProjectFiles.fixture("models/llama-3")
        let made = try await BuiltCommand.run(
            "snapshot",
            "--model",
            other,
            "--prompt",
            "a snapshot of another model",
            "-o",
            snapshot,
            "--codec",
            "f16"
        )
        try #require(made.status == 0, "\(made.errors)")
        let result = try await generate("--snapshot", snapshot, "--prompt", "The")
        BuiltCommandTests.expectBadInput(result, naming: snapshot, "another model", "tokenizer.sha256")
    }

    @Test func aSnapshotWithoutAFingerprintIsRefused() async throws {
        let path = try await BuiltCommandTests.makeSnapshot(of: BuiltCommandTests.dump, codec: "f16", in: folder)
        let result = try await generate("--snapshot", path, "--prompt", "The")
        BuiltCommandTests.expectBadInput(result, naming: path, "nobody knows which model made it")
    }

    @Test func emptyPromptsAreRefused() async throws {
        BuiltCommandTests.expectBadInput(try await generate("--prompt", ""), naming: "the prompt is empty")
        try Data().write(to: URL(filePath: text))
        BuiltCommandTests.expectBadInput(try await generate("--prompt-file", text), naming: text, "empty")
        #expect(try await generate().status == 2)
    }

    @Test func promptsThatAreNotTextAreRefused() async throws {
        try Data([0x48, 0x69, 0xFF, 0x20]).write(to: URL(filePath: text))
        let result = try await generate("--prompt-file", text)
        BuiltCommandTests.expectBadInput(result, naming: text, "not UTF-8 (at byte 2)")
        let snapshotted = try await BuiltCommand.run(
            "snapshot",
            "--model",
            Self.model,
            "--prompt-file",
            text,
            "-o",
            snapshot,
            "--codec",
            "f16"
        )
        BuiltCommandTests.expectBadInput(snapshotted, naming: text, "not UTF-8")
        #expect(!FileManager.default.fileExists(atPath: snapshot))
    }

    @Test func promptsLongerThanTheModelsPositionsAreRefused() async throws {
        let manual = "\(Self.model)/text/python-manual.txt"
        let result = try await generate("--prompt-file", manual)
        BuiltCommandTests.expectBadInput(result, naming: manual, "4096 positions", "shorten it")
    }

    @Test(arguments: ["remove", "truncate", "lie", "tokenizer"]) func damagedModelsAreRefused(damage: String)
        async throws
    {
        let copy = folder.file("model")
        try FileManager.default.copyItem(atPath: ProjectFiles.fixture("models/llama-2"), toPath: copy)
        let shard = "\(copy)/model-00002-of-00003.safetensors"
        let configuration = "\(copy)/config.json"
        var words = [shard]
        switch damage {
        case "remove":
            try FileManager.default.removeItem(atPath: shard)
            words.append("is missing")
        case "truncate":
            try Data(contentsOf: URL(filePath: shard)).prefix(20_000).write(to: URL(filePath: shard))
            words.append("cut off or damaged")
        case "lie":
            let text = try String(contentsOfFile: configuration, encoding: .utf8)
            try Data(text.replacing("\"hidden_size\": 32", with: "\"hidden_size\": 64").utf8)
                .write(to: URL(filePath: configuration))
            words = [copy, "must be [96, 64]"]
        default:
            try FileManager.default.removeItem(atPath: "\(copy)/tokenizer.json")
            try FileManager.default.copyItem(
                atPath: "\(Self.model)/tokenizer.json",
                toPath: "\(copy)/tokenizer.json"
            )
            words = ["\(copy)/tokenizer.json", "of another model"]
        }
        let result = try await BuiltCommand.run("generate", "--model", copy, "--prompt", "abc")
        BuiltCommandTests.expectBadInput(result, naming: words[0], words[1])
    }

    @Test(arguments: [
        ["generate", "--model", model, "--prompt", "a", "--max-tokens", "0"],
        ["generate", "--model", model, "--prompt", "a", "--temperature", "-1"],
        ["generate", "--model", model, "--prompt", "a", "--top-p", "0"],
        ["generate", "--model", model, "--prompt", "a", "--codec", "zip"],
        ["generate", "--prompt", "a"],
        ["snapshot", "-o", "x.tkv", "--codec", "f16"],
        ["snapshot", "dump", "--model", model, "-o", "x.tkv", "--codec", "f16"],
        ["snapshot", "--model", model, "-o", "x.tkv", "--codec", "f16"],
        ["snapshot", "dump", "--prompt", "a", "-o", "x.tkv", "--codec", "f16"],
    ]) func wrongUsageHasStatusTwo(arguments: [String]) async throws {
        let result = try await Subprocess.run(try BuiltCommand.found(), arguments)
        #expect(result.status == 2, "\(result.errors)")
        #expect(result.errors.hasPrefix("think-compress: "))
        #expect(result.output == "")
    }
}
