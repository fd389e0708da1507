import Foundation
import LlamaDecoder
import TestSupport
import Testing
import TextTokenization
import ThinkCompress

/// `generate` from snapshots, and the snapshots that it saves, as a user runs it.
@Suite(.serialized) struct ContinuationCommandTests {
    private static let model = GenerationCommandTests.model

    private let folder: TemporaryFolder
    private var text: String { folder.file("text.txt") }
    private var snapshot: String { folder.file("p.tkv") }

    init() throws {
        folder = try TemporaryFolder()
        try GenerationCommandTests.writeText(to: text, rest: 500)
    }

    private func makeSnapshot(codec: String) async throws {
        let arguments = ["--prompt-file", text, "-o", snapshot, "--codec", codec, "--no-quality"]
        let result = try await Subprocess.run(
            BuiltCommand.found(),
            ["snapshot", "--model", Self.model] + arguments
        )
        try #require(result.status == 0, "\(result.errors)")
    }

    private func generate(_ arguments: String...) async throws -> Subprocess.Result {
        try await Subprocess.run(BuiltCommand.found(), ["generate", "--model", Self.model] + arguments)
    }

    private func tokens(of file: String) async throws -> Int {
        let inspection = try BuiltCommandTests.json(try await BuiltCommand.run("inspect", file, "--json"))
        return try #require(inspection["tokens"] as? Int)
    }

    // MARK: - Going on

    @Test func aQuestionAloneGoesOnAfterTheSnapshotsTokens() async throws {
        try await makeSnapshot(codec: "think(keys=0.4)+kivi(bits=2)")
        let count = try await tokens(of: snapshot)
        let result = try await generate(
            "--snapshot",
            snapshot,
            "--prompt",
            GenerationCommandTests.question,
            "--max-tokens",
            "4",
            "--json"
        )
        let json = try BuiltCommandTests.json(result)
        #expect(result.errors == "")
        #expect((json["text"] as? String)?.hasPrefix("48213") == true)
        #expect(json["reusedTokens"] as? Int == count)
        let question = try LlamaModel(path: Self.model).tokenizer.encode(
            GenerationCommandTests.question,
            addingSpecialTokens: false
        )
        #expect(json["promptTokens"] as? Int == count + question.count)
    }

    @Test(arguments: [
        "snapkv(keep=0.7)+think(keys=0.4)+kivi(bits=2)", "streaming(recent=250)+f16", "keydiff(keep=0.7)+kivi(bits=4)",
    ])
    func selectedTokensGoOnWholeOnly(codec: String) async throws {
        try await makeSnapshot(codec: codec)
        let count = try await tokens(of: snapshot)
        let saved = folder.file("saved.tkv")
        let result = try await generate(
            "--snapshot",
            snapshot,
            "--prompt",
            GenerationCommandTests.question,
            "--max-tokens",
            "4",
            "--save",
            saved,
            "--json"
        )
        let json = try BuiltCommandTests.json(result)
        #expect(json["reusedTokens"] as? Int == count)
        // Queries that don't know the question don't vote for its answer.
        #expect((json["text"] as? String)?.hasPrefix("48213") == !codec.hasPrefix("snapkv"), "\(json)")
        #expect(try await BuiltCommand.run("verify", saved).status == 0)
        let prompt = try #require(json["promptTokens"] as? Int)
        #expect(try await tokens(of: saved) == prompt + 4)
        // What was saved goes on, too.
        let again = try BuiltCommandTests.json(try await generate("--snapshot", saved, "--max-tokens", "1", "--json"))
        #expect(again["reusedTokens"] as? Int == prompt + 4)
        // A text that shares the beginning alone is read anew, and the reason is said.
        let content = try String(contentsOfFile: text, encoding: .utf8)
        try Data((content.prefix(500) + " something else").utf8).write(to: URL(filePath: text))
        let other = try await generate("--snapshot", snapshot, "--prompt-file", text, "--max-tokens", "1")
        #expect(other.status == 0)
        #expect(
            other.errors.hasPrefix(
                "the prompt is not all of the snapshot's text and more, and the snapshot can be used whole only, as layer 0 "
                    + "does not hold all tokens, so it was read from its beginning\n"
            ),
            "\(other.errors)"
        )
    }

    @Test func theQuestionsQueriesKeepItsAnswer() async throws {
        let content = try String(contentsOfFile: text, encoding: .utf8) + GenerationCommandTests.question
        try Data(content.utf8).write(to: URL(filePath: text))
        try await makeSnapshot(codec: "snapkv(keep=0.3,observe=16)+kivi(bits=4,residual=32)")
        let count = try await tokens(of: snapshot)
        let json = try BuiltCommandTests.json(
            try await generate("--snapshot", snapshot, "--max-tokens", "4", "--json")
        )
        #expect(json["reusedTokens"] as? Int == count)
        #expect((json["text"] as? String)?.hasPrefix("48213") == true, "\(json)")
    }

    @Test func textGoesOnFromWhatWasSavedAsIfMadeInOneGo() async throws {
        try await makeSnapshot(codec: "f16")
        let whole = folder.file("whole.tkv")
        let part = folder.file("part.tkv")
        func text(_ arguments: String...) async throws -> String {
            let result = try await Subprocess.run(
                BuiltCommand.found(),
                ["generate", "--model", Self.model] + arguments
            )
            try #require(result.status == 0, "\(result.errors)")
            return String(result.output.dropLast())
        }
        let prompt = " The program"
        let once = try await text("--snapshot", snapshot, "--prompt", prompt, "--max-tokens", "24", "--save", whole)
        let first = try await text("--snapshot", snapshot, "--prompt", prompt, "--max-tokens", "12", "--save", part)
        // What is read may be replaced by what is saved: it stays mapped.
        let second = try await text("--snapshot", part, "--max-tokens", "12", "--save", part, "--force")
        #expect(first + second == once && once.count > 40)
        #expect(try BuiltCommandTests.data(part) == BuiltCommandTests.data(whole))
        let added = try LlamaModel(path: Self.model).tokenizer.encode(prompt, addingSpecialTokens: false).count + 24
        #expect(try await tokens(of: whole) == (try await tokens(of: snapshot)) + added)
        #expect(try await BuiltCommand.run("verify", whole).status == 0)
    }

    @Test func whatIsSavedWithoutASnapshotSaysWhatItIsOf() async throws {
        let saved = folder.file("s.tkv")
        let result = try await generate(
            "--prompt-file",
            text,
            "--max-tokens",
            "3",
            "--codec",
            "kivi(bits=2,residual=32)",
            "--save",
            saved,
            "--json"
        )
        let json = try BuiltCommandTests.json(result)
        let inspection = try BuiltCommandTests.json(try await BuiltCommand.run("inspect", saved, "--json"))
        let metadata = try #require(inspection["metadata"] as? [String: String])
        #expect(Set(metadata.keys) == ["model.id", "model.fingerprint", "tokenizer.sha256", "rope.theta", "producer"])
        #expect(inspection["recipe"] as? String == "kivi(bits=2,residual=32)")
        let prompt = try #require(json["promptTokens"] as? Int)
        #expect(inspection["tokens"] as? Int == prompt + 3)
        #expect(json["savedTokens"] as? Int == prompt + 3 && json["savedFile"] as? String == saved)
        #expect(json["savedBytes"] as? Int == (try BuiltCommandTests.data(saved)).count)
        let sections = try #require(inspection["sections"] as? [[String: Any]])
        #expect(sections.contains { $0["name"] as? String == "chain" })
        let again = try await generate("--snapshot", saved, "--max-tokens", "2", "--json")
        #expect(try BuiltCommandTests.json(again)["reusedTokens"] as? Int == prompt + 2)
    }

    @Test func aSnapshotIsReplacedByWhatIsSavedOnlyWithForce() async throws {
        try await makeSnapshot(codec: "f16")
        let before = try BuiltCommandTests.data(snapshot)
        let result = try await generate("--snapshot", snapshot, "--save", snapshot)
        BuiltCommandTests.expectBadInput(result, naming: snapshot, "exists already")
        #expect(try BuiltCommandTests.data(snapshot) == before)
    }

    // MARK: - What is said

    @Test func aSharedPrefixThatIsTooShortIsSaid() async throws {
        try await makeSnapshot(codec: "f16")
        let content = try String(contentsOfFile: text, encoding: .utf8)
        try Data((content.prefix(40) + " something else").utf8).write(to: URL(filePath: text))
        let tokenizer = try LlamaModel(path: Self.model).tokenizer
        let shared = zip(
            try tokenizer.encode(content),
            try tokenizer.encode(content.prefix(40) + " something else")
        ).prefix { $0 == $1 }.count
        #expect((2..<32).contains(shared))
        let result = try await generate("--snapshot", snapshot, "--prompt-file", text, "--max-tokens", "1")
        #expect(result.status == 0)
        #expect(
            result.errors.hasPrefix(
                "the prompt shares \(shared) tokens with the snapshot, fewer than a block of 32, so it was read from its "
                    + "beginning\n"
            )
        )
        // One token begins every text.
        try Data("~".utf8).write(to: URL(filePath: text))
        let other = try await generate("--snapshot", snapshot, "--prompt-file", text, "--max-tokens", "1")
        #expect(
            other.errors.hasPrefix(
                "the prompt shares 1 token with the snapshot, fewer than a block of 32, so it was read from its beginning\n"
            )
        )
    }

    @Test func aSnapshotOfWhatIsNoNumberIsNamed() async throws {
        try await makeSnapshot(codec: "f16")
        let dump = folder.file("sound.safetensors")
        #expect(try await BuiltCommand.run("restore", snapshot, "-o", dump).status == 0)
        var surgery = try SnapshotSurgery(path: snapshot)
        // The values of the first block, after its keys: 32 tokens of 64 numbers in float16.
        let values = try #require(surgery.section(7)).range.lowerBound + 32 * 64 * 2
        for index in 0..<32 * 64 { surgery.put(UInt16(0x7E00), at: values + 2 * index) }
        surgery.mendChecksums()
        try Data(surgery.bytes).write(to: URL(filePath: snapshot))
        let result = try await generate("--snapshot", snapshot, "--prompt-file", text, "--max-tokens", "1")
        BuiltCommandTests.expectBadInput(
            result,
            naming: "\(snapshot): values hold nan",
            "layer 0, head 0, token 0, channel 0"
        )
        let comparison = try await BuiltCommand.run("compare", dump, snapshot)
        #expect(comparison.status == 0)
        #expect(comparison.errors.hasPrefix("errors that are missing are not finite: \(snapshot): values hold nan"))
    }

    // MARK: - Options

    @Test func textMayBeginWithADash() async throws {
        let prompt = "- buy milk"
        let result = try await generate("--prompt", prompt, "--max-tokens", "1", "--json")
        let count = try LlamaModel(path: Self.model).tokens(of: prompt).count
        #expect(try BuiltCommandTests.json(result)["promptTokens"] as? Int == count)
        let path = try await BuiltCommandTests.makeSnapshot(
            of: BuiltCommandTests.writeSmallDump(in: folder),
            codec: "f16",
            in: folder
        )
        let restored = try await BuiltCommand.run("restore", path, "-o", folder.file("r"), "--expect", "-a=b")
        BuiltCommandTests.expectBadInput(restored, naming: "-a is not in the snapshot")
    }

    @Test(arguments: [
        ("--temperature", "-1", "--temperature -1.0: must be 0 or more"),
        ("--seed", "-1", "'-1' is invalid for '--seed"),
        ("--max-tokens", "-5", "--max-tokens -5: must be 1..."), ("--top-p", "-0.5", "--top-p -0.5: must be above 0"),
    ]) func negativeNumbersAreNoOptions(option: String, value: String, message: String) async throws {
        let result = try await generate("--prompt", "a", option, value)
        #expect(result.status == 2)
        #expect(result.errors.contains(message), "\(result.errors)")
    }
}
