import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Models in GGUF files, as a user runs them.
@Suite(.serialized) struct GGUFCommandTests {
    private let folder: TemporaryFolder
    private var model: String { folder.file("Tiny-F32.gguf") }
    private var snapshot: String { folder.file("a.tkv") }

    init() throws {
        folder = try TemporaryFolder()
        try GGUFBuilder.model().write(to: model)
    }

    private func run(_ arguments: String...) async throws -> Subprocess.Result {
        try await Subprocess.run(try BuiltCommand.found(), arguments)
    }

    @Test func aSnapshotOfAFileAnswers() async throws {
        let prompt = "abcdefgh ijkl mnop"
        let made = try await run(
            "snapshot",
            "--model",
            model,
            "--prompt",
            prompt,
            "-o",
            snapshot,
            "--codec",
            "kivi(bits=4)"
        )
        try #require(made.status == 0, "\(made.errors)")
        let metadata = try #require(
            try BuiltCommandTests.json(try await run("inspect", snapshot, "--json"))["metadata"] as? [String: String]
        )
        #expect(metadata["model.id"] == "Tiny-F32")
        #expect(metadata["model.fingerprint"]?.utf8.count == 64)
        let answer = try await run(
            "generate",
            "--model",
            model,
            "--snapshot",
            snapshot,
            "--prompt",
            " qrs",
            "--max-tokens",
            "3"
        )
        #expect(answer.status == 0, "\(answer.errors)")
        #expect(answer.errors.contains("from the snapshot"), "\(answer.errors)")
        // The same weights by another name are the same model, and others aren't.
        var other = GGUFBuilder.model()
        other[tensor: "blk.1.ffn_up.weight"].bytes[0] ^= 1
        try other.write(to: folder.file("other.gguf"))
        let refused = try await run(
            "generate",
            "--model",
            folder.file("other.gguf"),
            "--snapshot",
            snapshot,
            "--prompt",
            " qrs"
        )
        BuiltCommandTests.expectBadInput(refused, naming: snapshot, "made by another model", "model.fingerprint")
    }

    @Test func logitsAndProfilesAreComputed() async throws {
        let text = folder.file("text.txt")
        try Data("abcdefgh ijkl mnop".utf8).write(to: URL(filePath: text))
        for arguments in [
            ["logits", "--model", model, "--text", text, "-o", folder.file("logits.safetensors")],
            ["profile", "--model", model, "--text", text, "--effort", "0", "-o", folder.file("profile.safetensors")],
        ] {
            let result = try await Subprocess.run(try BuiltCommand.found(), arguments)
            #expect(result.status == 0, "\(result.errors)")
        }
        // The model is what it reads, and so not what it writes.
        let onto = try await run("logits", "--model", model, "--text", text, "-o", model, "--force")
        BuiltCommandTests.expectBadInput(onto, naming: model, "is read as well")
    }

    @Test func theDigestOfALargeFileIsRemembered() async throws {
        // A megabyte that nobody reads, after the model.
        let file = try FileHandle(forWritingTo: URL(filePath: model))
        try file.seekToEnd()
        try file.write(contentsOf: Data(count: 1 << 20))
        try file.close()
        let caches = folder.file("caches")
        func make() async throws -> Subprocess.Result {
            try await Subprocess(
                try BuiltCommand.found(),
                ["snapshot", "--model", model, "--prompt", "abcdefgh", "-o", snapshot, "--codec", "f16", "--force"],
                environment: ["XDG_CACHE_HOME": caches]
            ).result()
        }
        #expect(try await make().status == 0)
        // It was written just now.
        #expect(!FileManager.default.fileExists(atPath: caches))
        try await Task.sleep(for: .seconds(3.2))
        #expect(try await make().status == 0)
        let names = try FileManager.default.contentsOfDirectory(atPath: "\(caches)/think-compress/digests")
        #expect(names.count == 1)
        let first = try Data(contentsOf: URL(filePath: snapshot))
        #expect(try await make().status == 0)
        #expect(try Data(contentsOf: URL(filePath: snapshot)) == first)
    }

    struct BadFile: Sendable, CustomTestStringConvertible {
        let message: String
        let change: @Sendable (inout GGUFBuilder) -> [UInt8]

        var testDescription: String { message }

        init(_ message: String, _ change: @escaping @Sendable (inout GGUFBuilder) -> [UInt8]) {
            self.message = message
            self.change = change
        }
    }

    private static let badFiles = [
        BadFile("metadata 'general.architecture' is 'mamba', which is not supported; supported are llama") {
            $0["general.architecture"] = .string("mamba")
            return $0.file
        },
        BadFile("join them with llama-gguf-split --merge") {
            $0["split.count"] = .uint16(2)
            return $0.file
        },
        BadFile("is 'adapter', which is not a model by itself; pass the file of the model") {
            $0["general.type"] = .string("adapter")
            return $0.file
        },
        BadFile("the file has no tensors") {
            $0.tensors = []
            return $0.file
        },
        BadFile("tensor 'blk.0.attn_q.weight': has the type IQ2_XXS, which is not supported") {
            $0[tensor: "blk.0.attn_q.weight"].type = 16
            return $0.file
        },
        BadFile("metadata 'llama.expert_count' is not supported") {
            $0["llama.expert_count"] = .uint32(8)
            return $0.file
        },
        BadFile("tensor 'blk.1.ffn_down.weight': ends at byte 4960 of the data, which has 4860") {
            $0.file.dropLast(100)
        },
        BadFile("bytes, and 2 follow; the file is cut off or damaged") { Array($0.file.prefix(700)) },
        BadFile("GGUF version 1 is not supported") {
            $0.version = 1
            return $0.file
        },
        BadFile("the file is big-endian, which is not supported") {
            $0.version = 3 << 24
            return $0.file
        },
        BadFile("is neither a directory nor a GGUF file") { _ in Array("GGML".utf8) },
    ]

    @Test(arguments: badFiles) func badFilesAreNamed(file: BadFile) async throws {
        var builder = GGUFBuilder.model()
        let path = folder.file("bad.gguf")
        try Data(file.change(&builder)).write(to: URL(filePath: path))
        let result = try await run("generate", "--model", path, "--prompt", "a")
        BuiltCommandTests.expectBadInput(result, naming: path, file.message)
    }
}
