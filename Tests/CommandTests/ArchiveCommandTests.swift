import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Archives, as a user makes, restores and uses them.
@Suite(.serialized) struct ArchiveCommandTests {
    private static let model = GenerationCommandTests.model
    private static func fixture(_ name: String) -> String { ProjectFiles.fixture("archives/\(name)") }
    private static let dump = fixture("cache.safetensors")

    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
    }

    private func run(_ arguments: [String], kernels: String? = nil) async throws -> Subprocess.Result {
        let environment = kernels.map { ["THINK_COMPRESS_KERNELS": $0] } ?? [:]
        return try await Subprocess(BuiltCommand.found(), arguments, environment: environment).result()
    }

    // MARK: - The same bytes everywhere

    /// The instruction sets that kernels may be for; a machine has some of them.
    private static let kernelSets = ["scalar", "avx2", "avx512", "avx512vnni", "neon", "neondotprod"]

    /// Of both archives: the recipe, and what else is passed.
    private static let archives = [
        (file: "basis.tkv", recipe: "archive(bits=2.5,recent=32)", profile: ["--profile", fixture("cache.profile")]),
        (file: "channels.tkv", recipe: "archive(step=0.2,recent=32,sinks=2)", profile: []),
    ]

    @Test("every kernel set makes the same archive, and restores the same numbers", arguments: kernelSets)
    func archivesAreTheSameEverywhere(kernels: String) async throws {
        let version = try await run(["--version"], kernels: kernels)
        guard version.status == 0 else {
            #expect(kernels != "scalar" && version.errors.contains("names no instruction set of this machine"))
            return
        }
        for (file, recipe, profile) in Self.archives {
            let made = folder.file(file)
            let arguments = ["snapshot", Self.dump, "--codec", recipe, "--no-quality", "-o", made] + profile
            let result = try await run(arguments, kernels: kernels)
            try #require(result.status == 0, "\(result.errors)")
            let isEqual = try BuiltCommandTests.data(made) == BuiltCommandTests.data(Self.fixture(file))
            #expect(isEqual, "\(file)")
            let restored = [folder.file("own"), folder.file("best")]
            for (path, kernels) in zip(restored, [kernels, nil]) {
                let result = try await run(["restore", made, "-o", path, "--force"] + profile, kernels: kernels)
                try #require(result.status == 0, "\(result.errors)")
            }
            #expect(try BuiltCommandTests.data(restored[0]) == BuiltCommandTests.data(restored[1]))
        }
    }

    // MARK: - Dumps

    @Test func aDumpIsArchivedShownRestoredAndCompared() async throws {
        let file = folder.file("a.tkv")
        let made = try await run(["snapshot", Self.dump, "--codec", "archive(bits=2,recent=32)", "-o", file])
        #expect(made.status == 0 && made.errors == "")
        #expect(made.output.contains("200 tokens in") && made.output.contains("relative errors: keys 0."))
        #expect(made.output.contains("note: there is no profile with bases"))

        let inspected = try BuiltCommandTests.json(try await run(["inspect", file, "--json"]))
        #expect(inspected["formatVersion"] as? Int == 3)
        #expect(inspected["recipe"] as? String == "archive(bits=2,recent=32)")
        let archive = try #require(inspected["archive"] as? [String: Any])
        #expect(archive["units"] as? Int == 8 && archive["channels"] as? Int == 96 && archive["bases"] == nil)
        #expect((archive["step"] as? Double ?? 0) > 0)
        let bits = try #require(inspected["blockBitsPerValue"] as? Double)
        #expect(bits <= 2 && bits > 1.9, "\(bits)")
        let text = try await run(["inspect", file])
        let held = "156 in chunks of 1,024, 4 sinks, 40 in 8 bits"
        for word in [held, "archiveChunks", " in chunks)", "96 components"] {
            #expect(text.output.contains(word), "\(word): \(text.output)")
        }
        #expect(try await run(["verify", file]).output == "\(file): sound\n")

        let whole = folder.file("whole.safetensors")
        let restored = try await run(["restore", file, "-o", whole])
        #expect(restored.output == "\(whole): 200 tokens of 2 layers, F16\n", "\(restored.errors)")
        let compared = try BuiltCommandTests.json(try await run(["compare", Self.dump, file, "--json"]))
        let layers = try #require(compared["perLayer"] as? [[String: Any]] ?? compared["layers"] as? [[String: Any]])
        #expect(layers.count == 2)
    }

    /// The first tokens take the first chunks alone, and are what they are with all; the window may not be among them.
    @Test(arguments: [1, 70, 160, 161, 199]) func theFirstTokensAreRestored(tokens: Int) async throws {
        let (some, whole) = (folder.file("some.safetensors"), folder.file("whole.safetensors"))
        let file = Self.fixture("channels.tkv")
        let common = ["--type", "F32", "-o"]
        #expect(try await run(["restore", file] + common + [whole]).status == 0)
        let result = try await run(["restore", file, "--tokens", "\(tokens)"] + common + [some])
        #expect(result.status == 0, "\(result.errors)")
        let (first, all) = (try CacheDump.read(path: some), try CacheDump.read(path: whole))
        #expect(first.tokenCount == tokens && first.elementType == .float32)
        #expect(first.tokens == all.tokens.map { Array($0.prefix(tokens)) })
        for (left, right) in zip(first.layers, all.layers) {
            for part in CachePart.allCases { #expect(left[part].hasSameBits(as: right[part][tokens: 0..<tokens])) }
        }
    }

    @Test func otherProfilesAreRefused() async throws {
        let (file, profile) = (Self.fixture("basis.tkv"), Self.fixture("cache.profile"))
        let output = folder.file("x")
        for command in [["restore", file, "-o", output], ["compare", Self.dump, file]] {
            BuiltCommandTests.expectBadInput(try await run(command), naming: file, "pass that with --profile")
        }
        // The same dump with other units.
        let heads = folder.file("heads.profile")
        let made = try await run(["profile", "--from-dumps", Self.dump, "--basis", "head", "-o", heads])
        try #require(made.status == 0, "\(made.errors)")
        BuiltCommandTests.expectBadInput(
            try await run(["restore", file, "-o", output, "--profile", heads]),
            naming: file,
            "pass the profile that it was made by"
        )
        #expect(folder.content == ["heads.profile"])
        let compared = try await run(["compare", Self.dump, file, "--profile", profile])
        #expect(compared.status == 0 && compared.output.contains("archive(bits=2.5,recent=32)"), "\(compared.errors)")
    }

    // MARK: - What can't be

    @Test(
        "a recipe that can't be is refused",
        arguments: [
            ("archive(step=0)", "step=0 must be"), ("archive(bits=0)", "bits=0 must be"),
            ("archive(bits=1,step=1)", "one of step, quality, bits and ratio"),
            ("snapkv(keep=0.5)+archive(bits=1)", "archive is a recipe by itself"),
            ("archive(bits=1)+kivi(bits=2)", "no stage follows it"),
        ]
    ) func recipesAreRefused(recipe: String, message: String) async throws {
        let result = try await run(["snapshot", Self.dump, "--codec", recipe, "-o", folder.file("x")])
        #expect(result.status == 2 && result.output == "")
        #expect(result.errors.contains(message) && result.errors.contains("did you mean"), "\(result.errors)")
        #expect(folder.content.isEmpty)
    }

    @Test(
        "an aim that can't be reached is an error",
        arguments: [
            ("archive(step=0.00001)", "or more"), ("archive(ratio=200)", "less than ratio="),
            ("archive(bits=0.05)", "ask for more"),
        ]
    ) func aimsAreRefused(recipe: String, message: String) async throws {
        let result = try await run(["snapshot", Self.dump, "--codec", recipe, "-o", folder.file("x")])
        BuiltCommandTests.expectBadInput(result, naming: Self.dump, message)
        #expect(folder.content.isEmpty)
    }

    @Test("numbers that float16 hasn't are refused", arguments: [1e6, .nan, -.infinity] as [Float])
    func numbersAreRefused(number: Float) async throws {
        var numbers = [Float](repeating: 0.5, count: 40 * 4)
        numbers[77] = number
        let tensor = KVTensor(numbers, elementType: .float32, heads: 1, headDimension: 4)
        let cache = try KVCache(layers: [KVCacheLayer(keys: tensor, values: tensor)], tokenCount: 40)
        let dump = folder.file("dump.safetensors")
        try Data(SafetensorsBuilder(cache).file).write(to: URL(filePath: dump))
        let result = try await run(["snapshot", dump, "--codec", "archive(step=0.1)", "-o", folder.file("x")])
        BuiltCommandTests.expectBadInput(result, naming: dump, "layer 0, head 0, token 19, channel 1")
    }

    @Test func archivesAreNoRecipesForUseInPlace() async throws {
        let file = Self.fixture("channels.tkv")
        let restored = try await run(["restore", file, "-o", folder.file("x"), "--codec", "archive(bits=1)"])
        #expect(restored.status == 2 && restored.errors.contains("take a recipe in memory"))
        let both = try await run(["restore", file, "-o", folder.file("x"), "--codec", "balanced", "--tokens", "9"])
        #expect(both.status == 2 && both.errors.contains("leave out --type and --tokens"))
        let generated = try await run([
            "generate", "--model", Self.model, "--prompt", "a", "--codec", "archive(bits=1)",
        ])
        #expect(generated.status == 2 && generated.errors.contains("take a recipe in memory"))
        let packed = folder.file("packed.tkv")
        let made = try await run(["restore", file, "-o", packed, "--codec", "kivi(bits=4,residual=32)"])
        #expect(made.status == 0, "\(made.errors)")
        let again = try await run(["restore", packed, "-o", folder.file("x"), "--codec", "balanced"])
        BuiltCommandTests.expectBadInput(again, naming: packed, "is no archive")
    }

    // MARK: - A model

    @Test func aModelGoesOnFromAnArchive() async throws {
        let (text, profile, file) = (folder.file("text.txt"), folder.file("a.profile"), folder.file("a.tkv"))
        try GenerationCommandTests.writeText(to: text)
        let model = ["--model", Self.model]
        let measured = try await run(
            ["profile"] + model + ["--text", text, "--prefix", "192", "--effort", "1", "-o", profile]
        )
        try #require(measured.status == 0, "\(measured.errors)")
        let made = try await run(
            ["snapshot"] + model + ["--prompt-file", text, "--profile", profile, "--codec", "archive(bits=2)"]
                + ["-o", file, "--json"]
        )
        let report = try BuiltCommandTests.json(made)
        let archive = try #require(report["archive"] as? [String: Any])
        #expect((archive["bases"] as? String)?.count == 12 && archive["units"] as? Int == 4)
        let question = ["--prompt", GenerationCommandTests.question, "--max-tokens", "4", "--json"]
        let going = ["generate"] + model + ["--snapshot", file]
        for codec in [[], ["--codec", "kivi(bits=4)"]] {
            let result = try BuiltCommandTests.json(try await run(going + ["--profile", profile] + codec + question))
            #expect((result["text"] as? String)?.hasPrefix("48213") == true)
            #expect(result["reusedTokens"] as? Int == report["tokens"] as? Int)
        }
        BuiltCommandTests.expectBadInput(try await run(going + question), naming: file, "pass that with --profile")
        let packed = folder.file("packed.tkv")
        let restored = try await run(["restore", file, "--profile", profile, "--codec", "balanced", "-o", packed])
        #expect(restored.status == 0, "\(restored.errors)")
        let inspected = try BuiltCommandTests.json(try await run(["inspect", packed, "--json"]))
        #expect(inspected["formatVersion"] as? Int == 2 && inspected["archive"] == nil)
        #expect(inspected["tokens"] as? Int == report["tokens"] as? Int)
        // Archives are evaluated by what restoring them gives.
        let evaluated = try await run(
            ["eval"] + model + ["--text", text, "--codecs", "archive(bits=2)", "--profile", profile]
                + ["--prefix", "150", "--continuation", "10", "--trials", "1", "--json"]
        )
        let recipes = try #require(try BuiltCommandTests.json(evaluated)["recipes"] as? [[String: Any]])
        #expect(recipes.map { $0["recipe"] as? String } == ["f16", "archive(bits=2)"])
        #expect((recipes[1]["kl"] as? Double ?? 1) < 0.1)
    }
}
