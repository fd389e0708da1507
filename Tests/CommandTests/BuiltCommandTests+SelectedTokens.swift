import Foundation
import TestSupport
import Testing
import ThinkCompress

extension BuiltCommandTests {
    /// Recipes that select tokens, as a user runs them.
    @Suite struct SelectedTokensTests {
        struct Case: Sendable, CustomTestStringConvertible {
            let recipe: String
            /// Rows that stay of 300, and of the 64 of sliding layers.
            let kept: (of300: Int, of64: Int)
            var testDescription: String { recipe }
        }

        @Test(
            "selected tokens go the whole way",
            arguments: [
                Case(recipe: "streaming(recent=64)", kept: (68, 64)),
                Case(recipe: "snapkv(keep=0.5)+think(keys=0.4)+kivi(bits=2,residual=32)", kept: (150, 32)),
                Case(recipe: "keydiff(tokens=200,recent=8)+kivi(bits=4,residual=32)", kept: (200, 64)),
                Case(recipe: "h2o(keep=0.5)+balanced", kept: (150, 32)),
                Case(recipe: "snapkv(keep=0.4)+think(bits=3,values=3,recent=32)", kept: (120, 32)),
            ]
        )
        func wholeWay(_ test: Case) async throws {
            let folder = try TemporaryFolder()
            let (dump, file) = (folder.file("dump.safetensors"), folder.file("a.tkv"))
            let cache = try SmallModel.gemma3.cache()
            try SafetensorsBuilder(cache).write(to: dump)
            let made = try await BuiltCommand.run("snapshot", dump, "-o", file, "--codec", test.recipe)
            try #require(made.status == 0, "\(made.errors)")
            #expect(made.output.contains("tokens kept: "))
            #expect(try await BuiltCommand.run("verify", file).output == "\(file): sound\n")
            let loaded = try await SnapshotReader(path: file).cache()
            #expect(loaded.layers.map(\.rowCount) == Array(repeating: test.kept.of64, count: 5) + [test.kept.of300])
            #expect(loaded.tokenCount == 300)

            let text = try await BuiltCommand.run("inspect", file).output
            let percent = (Double(test.kept.of300) / 3).formatted(.number.precision(.fractionLength(1)))
            #expect(text.contains("listed \(test.kept.of300) of 300, \(percent) %: "), "\(text)")
            #expect(text.contains("tokens kept"))

            try await checkRestoring(loaded, file: file, in: folder)
            let compare = try await BuiltCommand.run("compare", dump, file, "--json")
            try #require(compare.status == 0, "\(compare.errors)")
            let errors = try JSONDecoder().decode(Inspection.Errors.self, from: Data(compare.output.utf8))
            #expect(try Inspection.quality(await BuiltCommand.run("inspect", file, "--json")) == errors)
            #expect(try #require(errors.attentionError) > 0.01)
            #expect(errors.keyError < 0.9)
        }

        /// A dump of the snapshot says which tokens are there, and makes the same cache again.
        private func checkRestoring(_ loaded: CompressedCache, file: String, in folder: TemporaryFolder) async throws {
            let dump = folder.file("restored.safetensors")
            let part = try await BuiltCommand.run("restore", file, "-o", dump, "--tokens", "200")
            expectBadInput(part, naming: file, "can be restored whole only", "does not hold all tokens")
            let whole = try await BuiltCommand.run("restore", file, "-o", dump)
            try #require(whole.status == 0, "\(whole.errors)")
            let restored = try CacheDump.read(path: dump)
            #expect(restored.tokenCount == 300)
            #expect(restored.tokens == loaded.tokens)
            for (own, layer) in zip(restored.layers, loaded.layers) {
                #expect(own.held == layer.held)
                let rows = try layer.decompress(rows: 0..<layer.rowCount, as: .float16)
                for part in CachePart.allCases {
                    let isSame = own[part].hasSameBits(as: rows[part])
                    #expect(isSame)
                }
            }
            let again = folder.file("again.tkv")
            let result = try await BuiltCommand.run("snapshot", dump, "-o", again, "--codec", "f16")
            try #require(result.status == 0, "\(result.errors)")
            #expect(try await SnapshotReader(path: again).cache().layers.map(\.held) == loaded.layers.map(\.held))
        }

        @Test("a cache without queries is refused where they vote, and the message says what to take")
        func missingQueries() async throws {
            let folder = try TemporaryFolder()
            let dump = folder.file("dump.safetensors")
            var maker = TestCache()
            maker.window = 0
            try SafetensorsBuilder(maker.makeQuickly()).write(to: dump)
            let result = try await BuiltCommand.run(
                "snapshot",
                dump,
                "-o",
                folder.file("a.tkv"),
                "--codec",
                "snapkv(keep=0.5)"
            )
            expectBadInput(result, naming: dump, "no queries came with the cache", "take keydiff or streaming")
            #expect(folder.content == ["dump.safetensors"])
            for recipe in ["keydiff(keep=0.5)", "streaming(recent=9)", "snapkv(tokens=1000)"] {
                let path = folder.file("\(recipe).tkv")
                #expect(try await BuiltCommand.run("snapshot", dump, "-o", path, "--codec", recipe).status == 0)
            }
        }

        @Test(
            "recipes that make no sense are wrong usage",
            arguments: [
                ("snapkv(keep=0)", "keep=0 must be a decimal above 0 and at most 1"),
                ("snapkv(keep=0.5,kernel=2)", "kernel=2 must be odd"), ("keydiff", "takes either keep"),
                ("kivi(bits=2)+keydiff(keep=0.5)", "did you mean keydiff(keep=0.5)+kivi(bits=2)?"),
                ("streaming(window=9)", "it has the parameters sinks, recent"),
            ]
        )
        func wrongUsage(recipe: String, message: String) async throws {
            let result = try await BuiltCommand.run("snapshot", "dump", "-o", "a.tkv", "--codec", recipe)
            #expect(result.status == 2)
            #expect(result.errors.contains(message), "\(result.errors)")
        }

        @Test("the help of recipes tells of every selection")
        func help() async throws {
            let help = try await BuiltCommand.run("snapshot", "--help").output
            for name in ["streaming(recent=1024)", "snapkv(keep=0.5)", "h2o(keep=0.5)", "keydiff(keep=0.5)"] {
                #expect(help.contains(name))
            }
        }
    }
}
