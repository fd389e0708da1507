import Foundation
import TestSupport
import Testing
import ThinkCompress

/// `eval`, `profile` and `bench`, as a user runs them.
@Suite(.serialized) struct MeasurementCommandTests {
    private static let model = GenerationCommandTests.model

    private let folder: TemporaryFolder
    private var text: String { folder.file("text.txt") }

    init() throws {
        folder = try TemporaryFolder()
        try GenerationCommandTests.writeText(to: text)
    }

    // MARK: - What works

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
            folder.file("p.tkv"),
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
        let rest = #""model":"m","prefix":192,"seed":0,"texts":[],"tokenizer":"t"},"version":2}"#
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
        let bars = shown.filter { $0.contains("#") }
        #expect(bars.map { $0.prefix(1) } == ["0", "1", "2", "3"])
        let bases = try #require(inspected["bases"] as? [String: Any])
        #expect(metadata["profile.bases"] == "layer" && bases["channels"] as? Int == 1024)
        #expect((bases["units"] as? [[String: Any]])?.map { $0["firstLayer"] as? Int } == [0, 1, 2, 3])
        #expect(shown.contains { $0.hasPrefix("bases: 4 units") })

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

    @Test func basesAreAddedToAProfile() async throws {
        let (plain, profile) = (folder.file("plain.profile"), folder.file("model.profile"))
        func run(_ arguments: [String]) async throws -> Subprocess.Result {
            try await Subprocess.run(try BuiltCommand.found(), arguments)
        }
        let common = ["profile", "--model", Self.model, "--text", text, "--prefix", "192"]
        let made = try BuiltCommandTests.json(
            try await run(common + ["--effort", "1", "--basis", "none", "-o", plain, "--json"])
        )
        #expect(made["bases"] == nil)
        let added = try await run(common + ["--from", plain, "-o", profile, "--json"])
        let report = try BuiltCommandTests.json(added)
        let bases = try #require(report["bases"] as? [String: Any])
        #expect((bases["archiveDigest"] as? String)?.count == 64)
        let former = try #require(made["metadata"] as? [String: String])
        let metadata = try #require(report["metadata"] as? [String: String])
        #expect(former.allSatisfy { metadata[$0.key] == $0.value })
        #expect(metadata["profile.bases.weights"] == "sensitivities" && metadata["profile.bases.prefix"] == "192")
        let (before, after) = try (
            SafetensorsFile(MappedFile.bytes(path: plain)), SafetensorsFile(MappedFile.bytes(path: profile))
        )
        for name in before.tensors.names {
            #expect(before.tensors[name]?.bytes.array == after.tensors[name]?.bytes.array, "\(name)")
        }
        #expect(!FileManager.default.fileExists(atPath: "\(profile).journal"))
        // Bases that are there are replaced; keys and values alike belong to a head.
        let heads = folder.file("heads.profile")
        let shown = try await run(common + ["--from", profile, "-o", heads, "--basis", "head"])
        #expect(
            shown.status == 0 && shown.output.contains("bases: 8 units, 1024 of 1024 components"),
            "\(shown.errors)"
        )
        let queries = ["--effort", "0", "--basis", "layers", "-o", folder.file("q2.profile")]
        let ofQueries = try await run(common + queries)
        #expect(ofQueries.output.contains("sensitivities were not measured\n\nbases: 2 units"), "\(ofQueries.errors)")
        let other = try await run(
            common + [
                "--from", ProjectFiles.root.appending(path: "Tools/Evaluation/SmolLM2-135M-Instruct.profile").path,
                "-o", folder.file("x"),
            ]
        )
        BuiltCommandTests.expectBadInput(other, naming: "SmolLM2-135M-Instruct.profile", "pass that of its model")
    }

    @Test func aProfileIsMadeOfDumps() async throws {
        let profile = folder.file("dumps.profile")
        let made = try await BuiltCommand.run(
            "profile",
            "--from-dumps",
            BuiltCommandTests.dump,
            "-o",
            profile,
            "--json"
        )
        #expect(made.status == 0 && made.errors.contains("what errors cost is not known"), "\(made.errors)")
        let report = try BuiltCommandTests.json(made)
        #expect(report["bases"] is [String: Any])
        let metadata = try #require(report["metadata"] as? [String: String])
        #expect(metadata["profile.bases.weights"] == "variances" && metadata["profile.bases.texts"]?.count == 64)
        let shown = try await BuiltCommand.run("inspect", profile)
        #expect(shown.output.contains("sensitivities were not measured\n\nbases: "))
        let used = try await BuiltCommand.run(
            "snapshot",
            BuiltCommandTests.dump,
            "-o",
            folder.file("x.tkv"),
            "--codec",
            "think(keys=0.5)",
            "--profile",
            profile
        )
        #expect(used.status == 0, "\(used.errors)")
        let wrong = try await BuiltCommand.run("profile", "--from-dumps", profile, "-o", folder.file("y"))
        BuiltCommandTests.expectBadInput(wrong, naming: profile, "no cache dump")
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

    @Test(arguments: [
        ["eval", "--model", model, "--text", "t", "--codecs", ";"],
        ["eval", "--model", model, "--text", "t", "--codecs", "f32"],
        ["eval", "needle", "--model", model, "--text", "t", "--codecs", "f16", "--depths", "2"],
        ["eval", "recall", "--model", model, "--text", "t", "--codecs", "f16", "--trials", "0"],
        ["bench", "--model", model, "--memory-limit", "0"],
        ["profile", "--model", model, "--text", "t", "-o", "x.q2", "--context", "0"],
        ["profile", "--model", model, "--text", "t", "-o", "x.q2", "--effort", "4"],
        ["profile", "--model", model, "--text", "t", "-o", "x.q2", "--prefix", "0"],
        ["profile", "--model", model, "--text", "t", "-o", "x.q2", "--basis", "row"],
        ["profile", "--model", model, "--text", "t", "-o", "x.q2", "--from", "y", "--effort", "1"],
        ["profile", "--model", model, "--text", "t", "-o", "x.q2", "--from", "y", "--basis", "none"],
        ["profile", "--model", model, "-o", "x.q2"],
        ["profile", "--from-dumps", "d", "--model", model, "-o", "x.q2"],
        ["profile", "--from-dumps", "d", "-o", "x.q2", "--prefix", "100"],
        ["bench", "--model", model, "--profile", "-"],
    ]) func wrongUsageHasStatusTwo(arguments: [String]) async throws {
        let result = try await Subprocess.run(try BuiltCommand.found(), arguments)
        #expect(result.status == 2, "\(result.errors)")
        #expect(result.errors.hasPrefix("think-compress: "))
        #expect(result.output == "")
    }
}
