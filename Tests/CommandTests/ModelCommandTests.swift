import Foundation
import TestSupport
import Testing
import ThinkCompress

/// The commands that run a model, as a user runs them.
@Suite(.serialized) struct ModelCommandTests {
    static let model = ProjectFiles.root.appending(path: "Tools/DemoModel").path
    static let question = " What is the magic number for lantern? The magic number for lantern is "

    private let folder: TemporaryFolder
    private var text: String { folder.file("text.txt") }
    private var snapshot: String { folder.file("p.tkv") }

    init() throws {
        folder = try TemporaryFolder()
        let manual = try String(contentsOfFile: "\(Self.model)/text/python-manual.txt", encoding: .utf8)
        let content = manual.prefix(700) + " The magic number for lantern is 48213." + manual.dropFirst(700).prefix(700)
        try Data(content.utf8).write(to: URL(filePath: text))
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

    @Test func evaluationsAreTablesJSONAndAPage() async throws {
        let manual = "\(Self.model)/text/postgresql-manual.txt"
        let common = [
            "--model", Self.model, "--text", manual, "--codecs", "kivi(bits=2,residual=32)", "--results",
            folder.file("r.jsonl"), "--html", folder.file("r.html"), "--force",
        ]
        let command = try BuiltCommand.found()
        let text = try await Subprocess.run(
            command,
            ["eval"] + common + ["--prefix", "150", "--continuation", "10", "--trials", "1"]
        )
        #expect(text.status == 0, "\(text.errors)")
        #expect(text.output.contains("bits per value") && text.output.contains("kivi(bits=2,residual=32)"))
        let needle = try await Subprocess.run(
            command,
            ["eval", "needle"] + common + ["--contexts", "150", "--depths", "0,1", "--trials", "1"]
        )
        #expect(needle.status == 0 && needle.output.contains("150"), "\(needle.errors)")
        let recall = try await Subprocess.run(
            command,
            ["eval", "recall"] + common + ["--context", "150", "--pairs", "3", "--trials", "1", "--json"]
        )
        let json = try BuiltCommandTests.json(recall)
        #expect(json["prefixTokens"] as? Int == 150 && json["recallPairs"] as? Int == 3)
        let recipes = try #require(json["recipes"] as? [[String: Any]])
        #expect(recipes.map { $0["recipe"] as? String } == ["f16", "kivi(bits=2,residual=32)"])
        for recipe in recipes {
            for key in [
                "ratio", "bitsPerValue", "kl", "top1", "perplexity", "perplexityChange", "attentionError",
                "recall", "recallSeen",
            ] {
                #expect(recipe[key] is Double, "\(key)")
            }
            #expect((recipe["needle"] as? [[String: Any]])?.count == 2)
        }
        let page = try String(contentsOfFile: folder.file("r.html"), encoding: .utf8)
        #expect(page.contains("<svg") && page.contains("kivi(bits=2,residual=32)"))
    }

    @Test func tablesFitAScreenHoweverManyRecipesThereAre() async throws {
        let codecs = [
            "kivi(bits=2)", "kivi(bits=4)", "think(keys=0.4)+kivi(bits=2)", "think(keys=0.4)+kivi(bits=4)",
            "think(keys=0.5)+kivi(bits=2)",
        ]
        let result = try await BuiltCommand.run(
            "eval",
            "--model",
            Self.model,
            "--text",
            "\(Self.model)/text/postgresql-manual.txt",
            "--codecs",
            codecs.joined(separator: ";"),
            "--prefix",
            "150",
            "--continuation",
            "4",
            "--trials",
            "1"
        )
        #expect(result.status == 0, "\(result.errors)")
        let parts = result.output.components(separatedBy: "\n\n")
        let place = try #require(parts.firstIndex(of: "error of the attention output by layer:"))
        let tables = parts[(place + 1)...].map { $0.split(separator: "\n") }
        #expect(tables.count == 2)
        for table in tables {
            #expect(table.map { $0.prefix { $0 != " " } } == ["layer", "0", "1", "2", "3"])
            #expect(table.allSatisfy { $0.count <= 100 })
        }
        let recipes = tables.flatMap { $0[0].split(separator: " ").dropFirst().map(String.init) }
        #expect(recipes == ["f16"] + codecs)
    }

    @Test func aProfileServesCachesWithoutQueries() async throws {
        let profile = folder.file("model.q2")
        let made = try await BuiltCommand.run(
            "profile",
            "--model",
            Self.model,
            "--text",
            text,
            "--effort",
            "0",
            "-o",
            profile,
            "--json"
        )
        #expect(try BuiltCommandTests.json(made)["layers"] as? Int == 4)
        let result = try await BuiltCommand.run(
            "snapshot",
            "--model",
            Self.model,
            "--prompt-file",
            text,
            "-o",
            snapshot,
            "--codec",
            "think(keys=0.5)",
            "--profile",
            profile
        )
        #expect(result.status == 0, "\(result.errors)")
        let wrong = try await BuiltCommand.run(
            "snapshot",
            BuiltCommandTests.dump,
            "-o",
            folder.file("x.tkv"),
            "--codec",
            "think(keys=0.5)",
            "--profile",
            "\(Self.model)/model.safetensors"
        )
        BuiltCommandTests.expectBadInput(
            wrong,
            naming: "\(Self.model)/model.safetensors: the profile has 0 layers"
        )
        let again = try await BuiltCommand.run("profile", "--model", Self.model, "--text", text, "-o", profile)
        BuiltCommandTests.expectBadInput(again, naming: profile, "exists already")
    }

    @Test func aProfileIsMeasuredShownAndUsed() async throws {
        let (profile, journal) = (folder.file("model.profile"), folder.file("model.profile.journal"))
        func run(_ arguments: String...) async throws -> Subprocess.Result {
            try await Subprocess.run(try BuiltCommand.found(), arguments)
        }
        let tokens = ["--prefix", "192", "--effort", "1"]
        let settings = ["profile", "--model", Self.model, "--text", text, "-o", profile] + tokens
        // One of other settings is in the way.
        let heading = #"{"format":"think-compress profile","settings":{"context":4096,"effort":2,"fingerprint":"f","#
        let rest = #""model":"m","prefix":192,"seed":0,"texts":[],"tokenizer":"t"},"version":1}"#
        try Data("\(heading)\(rest)\n".utf8).write(to: URL(filePath: journal))
        let refused = try await Subprocess.run(try BuiltCommand.found(), settings)
        BuiltCommandTests.expectBadInput(refused, naming: journal, "another model")
        try FileManager.default.removeItem(atPath: journal)
        let measured = try BuiltCommandTests.json(
            try await Subprocess.run(try BuiltCommand.found(), settings + ["--json"])
        )
        #expect(!FileManager.default.fileExists(atPath: journal))
        let inspected = try BuiltCommandTests.json(try await run("inspect", profile, "--json"))
        #expect(NSDictionary(dictionary: inspected) == NSDictionary(dictionary: measured))
        let layers = try #require(inspected["layerProfiles"] as? [[String: Any]])
        #expect(layers.map { $0["layer"] as? Int } == [0, 1, 2, 3])
        #expect(layers.allSatisfy { ($0["keySensitivity"] as? Double ?? 0) > 0 && $0["valueDim"] as? Int == 64 })
        let metadata = try #require(inspected["metadata"] as? [String: String])
        #expect(metadata["profile.method"] == "noise" && metadata["profile.texts"]?.count == 64)
        let shown = try await run("inspect", profile).output.split(separator: "\n")
        #expect(shown.contains { $0.hasPrefix("profile.prefix") && $0.hasSuffix("192") })
        let bars = shown.suffix(4)
        #expect(bars.map { $0.prefix(1) } == ["0", "1", "2", "3"] && bars.allSatisfy { $0.contains("#") })

        // Values' widths differ between heads and layers, and presets and budgets are told by their names.
        let budgets = [
            "eval", "--model", Self.model, "--text", text, "--codecs", "balanced;auto(bits=2.4);auto(error=9%)",
            "--prefix", "320", "--continuation", "8", "--trials", "1", "--profile", profile, "--json",
        ]
        let named = try await Subprocess.run(try BuiltCommand.found(), budgets)
        let rows = try #require(try BuiltCommandTests.json(named)["recipes"] as? [[String: Any]])
        #expect(rows.map { $0["name"] as? String } == [nil, "balanced", "auto(bits=2.4)", "auto(error=9%)"])
        let plain = ["f16", "think(bits=2.5,values=2.25)", "think(bits=2.525,values=2.275)"]
        #expect(rows.prefix(3).map { $0["recipe"] as? String } == plain)
        #expect(rows[3]["attentionError"] as? Double ?? 1 <= 0.09)
        let file = folder.file("balanced.tkv")
        let command = ["snapshot", "--model", Self.model, "--prompt-file", text, "-o", file, "--profile", profile]
        let snapshot = try await Subprocess.run(try BuiltCommand.found(), command + ["--codec", "auto(error=9%)"])
        #expect(snapshot.output.contains("think(bits="), "\(snapshot.errors)")
        #expect(snapshot.output.contains("; keys' widths by channel and values' by head, as the profile"))

        let results = folder.file("results.jsonl")
        let evaluation = [
            "eval", "--model", Self.model, "--text", text, "--codecs", "think(keys=0.5)", "--prefix", "100",
            "--continuation", "8", "--trials", "1", "--results", results,
        ]
        let evaluated = try await Subprocess.run(try BuiltCommand.found(), evaluation + ["--profile", profile])
        #expect(evaluated.status == 0, "\(evaluated.errors)")
        let without = try await Subprocess.run(try BuiltCommand.found(), evaluation)
        BuiltCommandTests.expectBadInput(without, naming: results, "seed or profile")
        let other = ProjectFiles.fixture("models/llama-3")
        let bench = try await run("bench", "--model", other, "--prompt-tokens", "64", "--profile", profile)
        BuiltCommandTests.expectBadInput(bench, naming: profile, "pass that of its model")
    }

    @Test func benchFindsTheLargestBatch() async throws {
        let result = try await BuiltCommand.run(
            "bench",
            "--model",
            ProjectFiles.fixture("models/llama-3"),
            "--prompt-tokens",
            "96",
            "--new-tokens",
            "2",
            "--max-batch",
            "3",
            "--memory-limit",
            "4000",
            "--codecs",
            "f16;kivi(bits=2,residual=32)",
            "--json"
        )
        let json = try BuiltCommandTests.json(result)
        let recipes = try #require(json["recipes"] as? [[String: Any]])
        #expect(recipes.map { $0["largestBatch"] as? Int } == [3, 3])
        #expect(try #require(recipes[0]["cacheBytes"] as? Int) > (try #require(recipes[1]["cacheBytes"] as? Int)))
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

    @Test func whatIsReadIsNotReplaced() async throws {
        let before = try Data(contentsOf: URL(filePath: text))
        for arguments in [
            ["snapshot", "--model", Self.model, "--prompt-file", text, "-o", text, "--codec", "f16", "--force"],
            ["profile", "--model", Self.model, "--text", text, "-o", text, "--force"],
            ["eval", "--model", Self.model, "--text", text, "--codecs", "f16", "--html", text, "--force"],
        ] {
            let result = try await Subprocess.run(try BuiltCommand.found(), arguments)
            BuiltCommandTests.expectBadInput(result, naming: text, "is read as well")
        }
        let journal = folder.file("r.jsonl")
        let page = "\(folder.path)/./r.jsonl"
        let result = try await BuiltCommand.run(
            "eval",
            "--model",
            Self.model,
            "--text",
            text,
            "--codecs",
            "f16",
            "--results",
            journal,
            "--html",
            page,
            "--force"
        )
        BuiltCommandTests.expectBadInput(result, naming: page, "is read as well")
        #expect(try Data(contentsOf: URL(filePath: text)) == before)
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
        ["eval", "--model", model, "--text", "t", "--codecs", ";"],
        ["eval", "--model", model, "--text", "t", "--codecs", "f32"],
        ["eval", "needle", "--model", model, "--text", "t", "--codecs", "f16", "--depths", "2"],
        ["eval", "recall", "--model", model, "--text", "t", "--codecs", "f16", "--trials", "0"],
        ["bench", "--model", model, "--memory-limit", "0"],
        ["profile", "--model", model, "--text", "t", "-o", "x.q2", "--context", "0"],
        ["profile", "--model", model, "--text", "t", "-o", "x.q2", "--effort", "4"],
        ["profile", "--model", model, "--text", "t", "-o", "x.q2", "--prefix", "0"],
        ["bench", "--model", model, "--profile", "-"],
    ]) func wrongUsageHasStatusTwo(arguments: [String]) async throws {
        let result = try await Subprocess.run(try BuiltCommand.found(), arguments)
        #expect(result.status == 2, "\(result.errors)")
        #expect(result.errors.hasPrefix("think-compress: "))
        #expect(result.output == "")
    }
}
