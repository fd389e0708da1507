import Foundation
import TestSupport
import Testing
import ThinkCompress

extension BuiltCommandTests {
    /// Inputs that are legal or nearly so, and ways to run the command that few have in mind.
    @Suite struct SurpriseTests {
        @Test("a query that isn't a number leaves the profile out, where no stage needs it")
        func nonFiniteQuery() async throws {
            let folder = try TemporaryFolder()
            var model = TestCache()
            model.tokens = 40
            let cache = try model.make()
            let queries = try #require(cache.layers[1].queries)
            var numbers = queries.numbers
            numbers[numbers.count - 1] = .nan
            let second = KVCacheLayer(
                keys: cache.layers[1].keys,
                values: cache.layers[1].values,
                queries: KVTensor(numbers, elementType: .float16, heads: queries.heads, headDimension: 64)
            )
            let changed = try KVCache(layers: [cache.layers[0], second], tokens: cache.tokens)
            try SafetensorsBuilder(changed).write(to: folder.file("dump"))
            let path = try await makeSnapshot(of: folder.file("dump"), in: folder)
            let reader = try SnapshotReader(path: path)
            try await reader.verify()
            #expect(!reader.sections.contains { $0.kind == .profile })
            let refused = try await BuiltCommand.run(
                "snapshot",
                folder.file("dump"),
                "-o",
                folder.file("b"),
                "--codec",
                "think(keys=0.4)"
            )
            expectBadInput(refused, naming: "layer 1", "query")
        }

        @Test("numbers beyond float16 are not restored as infinities")
        func restoringToSmallerType() async throws {
            let folder = try TemporaryFolder()
            let numbers: [Float] = [1, 2, 3, 1e6]
            let tensor = KVTensor(numbers, elementType: .float32, heads: 1, headDimension: 2)
            try SafetensorsBuilder(KVCache(layers: [KVCacheLayer(keys: tensor, values: tensor)])).write(
                to: folder.file("dump")
            )
            let path = try await makeSnapshot(of: folder.file("dump"), codec: "f32", in: folder)
            let result = try await BuiltCommand.run("restore", path, "-o", folder.file("out"), "--type", "F16")
            expectBadInput(result, naming: path, "token 1", "channel 1")
            #expect(!folder.content.contains("out"))
            let whole = try await BuiltCommand.run("restore", path, "-o", folder.file("out"), "--type", "BF16")
            #expect(whole.status == 0)
        }

        @Test("metadata can't command the terminal")
        func controlCharacters() async throws {
            let folder = try TemporaryFolder()
            let dump = try writeSmallDump(in: folder) { $0.metadata["a\u{1B}[2J\u{202E}"] = "b\u{7}\u{1B}]0;x" }
            let path = try await makeSnapshot(of: dump, in: folder)
            let result = try await BuiltCommand.run("inspect", path)
            #expect(result.status == 0)
            #expect(result.output.contains("a?[2J?"))
            for character in ["\u{1B}", "\u{7}", "\u{202E}"] { #expect(!result.output.contains(character)) }
        }

        @Test("a query profile of another model is refused", arguments: [0, 1, 3])
        func profileOfAnotherModel(layers: Int) async throws {
            let folder = try TemporaryFolder()
            let dump = try writeSmallDump(in: folder)
            var profile = SafetensorsBuilder()
            for layer in 0..<layers {
                profile.tensors.append(.init("layers.\(layer).q2", [2, 16], floats: [Float](repeating: 1, count: 32)))
            }
            try profile.write(to: folder.file("profile"))
            let result = try await BuiltCommand.run(
                "snapshot",
                dump,
                "-o",
                folder.file("out"),
                "--codec",
                "f16",
                "--profile",
                folder.file("profile")
            )
            expectBadInput(result, naming: "the profile has", "\(layers) layers")
        }

        @Test("an unknown instruction set is wrong usage")
        func unknownInstructionSet() async throws {
            let command = try BuiltCommand.found()
            let result = try await Subprocess.run(
                "/usr/bin/env",
                ["THINK_COMPRESS_KERNELS=abacus", command, "--version"]
            )
            #expect(result.status == 2)
            #expect(result.errors.hasPrefix("think-compress: THINK_COMPRESS_KERNELS"))
        }

        // Others have no /dev/full.
        #if os(Linux)
            @Test("output that can't be written is no success")
            func fullStandardOutput() async throws {
                let folder = try TemporaryFolder()
                let path = try await makeSnapshot(of: writeSmallDump(in: folder), in: folder)
                let result = try await Subprocess.run(
                    "/bin/sh",
                    ["-c", "exec \"$1\" inspect \"$2\" > /dev/full", "sh", BuiltCommand.found(), path]
                )
                #expect(result.status == 1)
            }
        #endif
    }
}
