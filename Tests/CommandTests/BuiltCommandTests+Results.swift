import Foundation
import TestSupport
import Testing
import ThinkCompress

extension BuiltCommandTests {
    /// What the subcommands do when all is well.
    @Suite struct ResultsTests {
        static let recipe = "think(keys=0.4)+kivi(bits=2)"

        @Test("a dump goes the whole way: snapshot, inspect, verify, compare, restore")
        func wholeWay() async throws {
            let folder = try TemporaryFolder()
            let (file, restored) = (folder.file("a.tkv"), folder.file("a.safetensors"))
            let snapshot = try await BuiltCommand.run("snapshot", dump, "-o", file, "--codec", Self.recipe)
            #expect(snapshot.status == 0)
            #expect(snapshot.errors == "")
            #expect(snapshot.output.hasPrefix("\(file): 2,048 tokens in 889,152 bytes, 4.72 times smaller"))
            #expect(snapshot.output.contains("relative errors: keys 0."))

            let inspect = try await BuiltCommand.run("inspect", file, "--json")
            #expect(inspect.status == 0)
            #expect(inspect.errors == "")
            #expect(Set(try json(inspect).keys) == Inspection.keys)
            let report = try Inspection(inspect)
            try check(report, file: file)

            let text = try await BuiltCommand.run("inspect", file)
            #expect(text.status == 0)
            for word in [file, Self.recipe, "think-compress-demo", "2,048", "39 of 64", "889,152 bytes", "pageTable"] {
                #expect(text.output.contains(word), "\(word)")
            }

            let verify = try await BuiltCommand.run("verify", file)
            #expect(verify.status == 0)
            #expect(verify.output == "\(file): sound\n")
            #expect(verify.errors == "")

            let restore = try await BuiltCommand.run("restore", file, "-o", restored)
            #expect(restore.status == 0)
            #expect(restore.output == "\(restored): 2,048 tokens of 4 layers, F16\n")

            let compare = try await BuiltCommand.run("compare", dump, file, "--json")
            #expect(compare.status == 0)
            #expect(compare.errors == "")
            try check(compare, inspection: report, restored: restored)

            let table = try await BuiltCommand.run("compare", dump, file)
            #expect(table.status == 0)
            #expect(table.output.contains("\(Self.recipe): 3.35 bits per value, 4.72 times smaller than float16"))
            #expect(table.output.split(separator: "\n").count == 7)
            #expect(folder.content == ["a.safetensors", "a.tkv"])
        }

        @Test("presets and budgets are written out as plain recipes")
        func plainRecipes() async throws {
            struct Report: Decodable {
                let recipe: String
                let preset: String?
                let metadata: [String: String]
                let ratio: Double
            }
            let folder = try TemporaryFolder()
            let file = folder.file("a.tkv")
            func report() async throws -> Report {
                let inspect = try await BuiltCommand.run("inspect", file, "--json")
                return try JSONDecoder().decode(Report.self, from: Data(inspect.output.utf8))
            }
            let balanced = "think(bits=2.5,values=2.25)"
            let byDefault = try await BuiltCommand.run("snapshot", dump, "-o", file)
            #expect(byDefault.output.contains("\nrecipe: balanced: \(balanced)\n"), "\(byDefault.errors)")
            let first = try await report()
            #expect(first.recipe == balanced && first.preset == "balanced")
            #expect(try await BuiltCommand.run("inspect", file).output.contains("balanced: \(balanced)"))
            #expect(try await BuiltCommand.run("compare", dump, file).output.hasPrefix("balanced: \(balanced): "))

            func snapshot(_ codec: String) async throws -> Subprocess.Result {
                try await BuiltCommand.run("snapshot", dump, "-o", file, "--codec", codec, "--force")
            }
            let byRatio = try await snapshot("auto(ratio=4)")
            #expect(byRatio.output.contains("\nnote: auto(ratio=4): "), "\(byRatio.errors)")
            let second = try await report()
            #expect(second.recipe.hasPrefix("think(bits=") && second.preset == nil)
            #expect(second.ratio >= 4 && second.ratio < 4.2)
            #expect(second.metadata["recipe.rationale"]?.hasPrefix("auto(ratio=4): ") == true)

            let tooMuch = try await snapshot("auto(ratio=15)")
            BuiltCommandTests.expectBadInput(tooMuch, naming: dump, "the most is about ratio=")
        }

        private func check(_ report: Inspection, file: String) throws {
            let surgery = try SnapshotSurgery(path: file)
            #expect(report.file == file)
            #expect(report.formatVersion == 2)
            #expect(report.metadata == ["model.id": "think-compress-demo", "rope.theta": "100000.0"])
            #expect(report.recipe == Self.recipe)
            #expect(report.elementType == "F16")
            #expect(report.tokenCounts == [2048, 1920, 128])
            #expect(report.blockLength == 32)
            #expect(report.residualWindow == 128)
            #expect(report.layers == 4)
            #expect(report.queryHeads == 8)
            #expect(report.kvHeads == 2)
            #expect(report.headDim == 64)
            // 64 - floor(0.4 * 64)
            #expect(report.keptKeyChannels == [39, 39])
            #expect(report.keptValueChannels == [64, 64])
            #expect(report.fileBytes == surgery.bytes.count)
            #expect(report.float16Bytes == 2 * 4 * 2 * 64 * 2048 * 2)
            let payload = [3, 4, 7, 8, 10].reduce(0) { $0 + (surgery.section($1)?.range.count ?? 0) }
            #expect(report.payloadBytes == payload)
            #expect(report.bitsPerValue == Double(payload) * 8 / Double(2 * 4 * 2 * 64 * 2048))
            // Keys: 5 lines, 160 bytes of scales and minima, to 512; values: 8 lines, 256 bytes.
            #expect(report.blockBitsPerValue == Double(1280 * 8) / Double(2 * 32 * 64))
            #expect(report.ratio == Double(report.float16Bytes) / Double(report.fileBytes))
            let names = [
                "metadata", "recipe", "geometry", "plan", "profile", "quality", "pages", "pageTable", "sinks", "window",
                "heldTokens", "state", "tokens", "positions", "chain",
            ]
            #expect(
                report.sections
                    == surgery.sections.map {
                        Inspection.Section(
                            name: names[$0.kind - 1],
                            coding: "raw",
                            offset: $0.range.lowerBound,
                            storedBytes: $0.range.count,
                            bytes: $0.range.count
                        )
                    }
            )
        }

        /// Compares errors of keys and values with those of the restored dump, added up here.
        private func check(_ compare: Subprocess.Result, inspection: Inspection, restored: String) throws {
            let keys: Set = ["keyError", "valueError", "scoreError", "attentionError"]
            #expect(Set(try json(compare).keys) == keys.union(["recipe", "bitsPerValue", "ratio", "layers"]))
            struct Comparison: Decodable {
                let recipe: String
                let bitsPerValue: Double
                let ratio: Double
                let layers: [Inspection.Errors]
            }
            let output = Data(compare.output.utf8)
            let comparison = try JSONDecoder().decode(Comparison.self, from: output)
            let total = try JSONDecoder().decode(Inspection.Errors.self, from: output)
            #expect(comparison.recipe == inspection.recipe)
            #expect(comparison.bitsPerValue == inspection.bitsPerValue)
            #expect(comparison.ratio == inspection.ratio)
            #expect(total == inspection.quality)
            #expect(comparison.layers.count == 4)
            #expect(comparison.layers.allSatisfy { $0.scoreError ?? 0 > 0 && $0.attentionError ?? 0 > 0 })

            let before = try CacheDump.read(path: dump)
            let after = try CacheDump.read(path: restored)
            var keySums = ErrorSum()
            var valueSums = ErrorSum()
            for (layer, errors) in comparison.layers.enumerated() {
                let ours = ErrorSum(
                    before.layers[layer].keys.packedBytes.halves,
                    after.layers[layer].keys.packedBytes.halves
                )
                let values = ErrorSum(
                    before.layers[layer].values.packedBytes.halves,
                    after.layers[layer].values.packedBytes.halves
                )
                #expect(abs(errors.keyError - ours.relative) < 1e-5)
                #expect(abs(errors.valueError - values.relative) < 1e-5)
                keySums.add(ours)
                valueSums.add(values)
            }
            #expect(abs(total.keyError - keySums.relative) < 1e-5)
            #expect(abs(total.valueError - valueSums.relative) < 1e-5)
        }

        @Test("snapshot prints as JSON what inspect does")
        func snapshotJSON() async throws {
            let folder = try TemporaryFolder()
            let small = try writeSmallDump(in: folder)
            let file = folder.file("a.tkv")
            let snapshot = try await BuiltCommand.run(
                "snapshot",
                small,
                "-o",
                file,
                "--codec",
                "kivi(bits=4)",
                "--json"
            )
            let inspect = try await BuiltCommand.run("inspect", file, "--json")
            #expect(snapshot.status == 0)
            #expect(snapshot.output == inspect.output)
            let report = try Inspection(inspect)
            #expect(report.quality?.keyError == 0)
            // All 50 tokens are in the window.
            #expect(try json(inspect)["blockBitsPerValue"] == nil)
            #expect(report.tokenCounts == [50, 0, 50])
        }

        /// A residual window, and what the text says of 100 tokens with 40 sinks.
        static let sinks = [
            (window: 128, text: "100: 0 in blocks of 32, 100 in full precision"),
            (window: 0, text: "100: 96 in blocks of 32, 40 of them sinks, 4 in full precision"),
        ]

        @Test("inspect counts sinks in blocks, and channels by the layer that they are of", arguments: sinks)
        func countsOfLayers(_ test: (window: Int, text: String)) async throws {
            let folder = try TemporaryFolder()
            var generator = SplitMix64(seed: 1)
            let shape = BlockShape(elementType: .float16, blockLength: 32, residualWindow: test.window)
            let layers = try [8, 16].enumerated().map { index, dimension in
                let geometry = try LayerGeometry(kvHeads: 1, keyDimension: dimension, valueDimension: dimension)
                let coding = try Coding(width: 2)
                let run = HeadPlan.KeyRun(coding, channels: (0..<UInt16(dimension)).map { $0 })
                let head = try HeadPlan(keyRuns: [run], values: coding, geometry: geometry)
                return try CompressedLayer(
                    packing: .random(geometry, elementType: .float16, rows: 100, using: &generator),
                    by: LayerPlan(geometry: geometry, sinks: 40, heads: [head]),
                    shape: shape,
                    index: index
                )
            }
            let cache = try CompressedCache(layers)
            try await SnapshotWriter().write(cache, to: folder.file("a.tkv"))
            let text = try await BuiltCommand.run("inspect", folder.file("a.tkv"))
            #expect(text.status == 0)
            #expect(text.output.contains(test.text), "\(text.output)")
            // Nothing is pruned.
            #expect(!text.output.contains("channels kept"), "\(text.output)")
            let report = try json(await BuiltCommand.run("inspect", folder.file("a.tkv"), "--json"))
            #expect(report["keptKeyChannels"] as? [Int] == [8, 16])
            #expect(report["keptValueChannels"] as? [Int] == [8, 16])
        }

        @Test("a cache without some of its value channels goes the whole way")
        func valueChannels() async throws {
            let folder = try TemporaryFolder()
            let dump = try writeSmallDump(in: folder, tokens: 300)
            let recipe = "think(keys=0.4,values=0.2)+kivi(bits=2)"
            let snapshot = try await BuiltCommand.run(
                "snapshot",
                dump,
                "-o",
                folder.file("a.tkv"),
                "--codec",
                recipe
            )
            #expect(snapshot.status == 0, "\(snapshot.errors)")
            let text = try await BuiltCommand.run("inspect", folder.file("a.tkv"))
            #expect(text.output.contains("value channels kept"), "\(text.output)")
            let report = try json(await BuiltCommand.run("inspect", folder.file("a.tkv"), "--json"))
            let kept = try #require(report["keptValueChannels"] as? [Int])
            let dimension = try #require(report["headDim"] as? Int)
            #expect(kept == [dimension - dimension / 5, dimension - dimension / 5])
            // Of 2 bits, of 0 where they are pruned.
            let bits = try #require(report["codeBits"] as? [[String: Double]])
            #expect(bits.allSatisfy { $0["values"] == Double(2 * kept[0]) / Double(dimension) })
            let verified = try await BuiltCommand.run("verify", folder.file("a.tkv"))
            #expect(verified.status == 0, "\(verified.errors)")
            let compared = try await BuiltCommand.run("compare", dump, folder.file("a.tkv"))
            #expect(compared.status == 0, "\(compared.errors)")
            let restored = folder.file("b.safetensors")
            let restoring = try await BuiltCommand.run("restore", folder.file("a.tkv"), "-o", restored)
            #expect(restoring.status == 0, "\(restoring.errors)")
            // What was pruned is 0 in blocks, and there in the window.
            let values = try CacheDump.read(path: restored).layers[0].values
            let numbers = values[tokens: 0..<1].numbers.prefix(dimension)
            #expect(numbers.count { $0 == 0 } == dimension - kept[0])
            #expect(!values[tokens: 299..<300].numbers.prefix(dimension).contains(0))
        }

        @Test("a zstd snapshot is smaller and holds the same", arguments: [1, 19])
        func zstd(level: Int) async throws {
            let folder = try TemporaryFolder()
            let small = try writeSmallDump(in: folder, tokens: 300) {
                $0["layers.0.values"].bytes = [UInt8](repeating: 0x3C, count: $0["layers.0.values"].bytes.count)
            }
            let raw = try await makeSnapshot(of: small, in: folder)
            let packed = folder.file("b.tkv")
            let result = try await BuiltCommand.run(
                "snapshot",
                small,
                "-o",
                packed,
                "--codec",
                "kivi(bits=2,residual=0)",
                "--no-quality",
                "--compress",
                "\(level)"
            )
            #expect(result.status == 0)
            let report = try Inspection(try await BuiltCommand.run("inspect", packed, "--json"))
            #expect(report.fileBytes < (try data(raw).count))
            #expect(report.sections.contains { $0.coding == "zstd" && $0.storedBytes < $0.bytes })
            #expect(try await BuiltCommand.run("verify", packed).status == 0)
            for (file, name) in [(raw, "raw"), (packed, "packed")] {
                #expect(try await BuiltCommand.run("restore", file, "-o", folder.file(name)).status == 0)
            }
            #expect(try data(folder.file("raw")) == data(folder.file("packed")))
        }

        @Test("the recipe f16 gives keys and values back bit for bit")
        func bitForBit() async throws {
            let folder = try TemporaryFolder()
            let file = try await makeSnapshot(of: dump, codec: "f16", in: folder)
            let restored = folder.file("a.safetensors")
            let result = try await BuiltCommand.run("restore", file, "-o", restored, "--json")
            #expect(result.status == 0)
            let report = try json(result)
            #expect(
                Set(report.keys) == ["file", "tokens", "layers", "kvHeads", "headDim", "elementType", "recipe"]
            )
            #expect(report["file"] as? String == restored)
            #expect(report["tokens"] as? Int == 2048)
            #expect(report["layers"] as? Int == 4)
            #expect(report["kvHeads"] as? Int == 2)
            #expect(report["headDim"] as? Int == 64)
            #expect(report["elementType"] as? String == "F16")
            #expect(report["recipe"] as? String == "f16")

            let before = try SafetensorsFile(MappedFile.bytes(path: dump))
            let after = try SafetensorsFile(MappedFile.bytes(path: restored))
            for layer in 0..<4 {
                for part in ["keys", "values"] {
                    let name = "layers.\(layer).\(part)"
                    #expect(after.tensors[name]?.shape == [1, 2, 2048, 64])
                    #expect(after.tensors[name]?.bytes.data == before.tensors[name]?.bytes.data, "\(name)")
                }
                #expect(after.tensors["layers.\(layer).q2"]?.shape == [2, 64])
            }
            #expect(after.tensors["tokens"]?.bytes.data == before.tensors["tokens"]?.bytes.data)
            #expect(after.metadata == before.metadata)
        }

        @Test("a part of the tokens is the beginning of all", arguments: [1, 33, 256, 1920, 1921, 2047])
        func someTokens(count: Int) async throws {
            let folder = try TemporaryFolder()
            let file = try await makeSnapshot(of: dump, codec: "kivi(bits=2)", in: folder)
            let (whole, part) = (folder.file("whole"), folder.file("part"))
            #expect(try await BuiltCommand.run("restore", file, "-o", whole).status == 0)
            let result = try await BuiltCommand.run("restore", file, "-o", part, "--tokens", "\(count)", "--json")
            #expect(result.status == 0)
            #expect(try json(result)["tokens"] as? Int == count)
            let all = try CacheDump.read(path: whole)
            let some = try CacheDump.read(path: part)
            #expect(some.tokenCount == count)
            #expect(some.tokens == all.tokens.map { Array($0.prefix(count)) })
            #expect(some.layers[3].keys.packedBytes == all.layers[3].keys[tokens: 0..<count].packedBytes)
            #expect(some.layers[0].values.packedBytes == all.layers[0].values[tokens: 0..<count].packedBytes)
        }

        @Test("a dump may be restored to another type", arguments: ["F32", "f32", "F16", "bf16"])
        func otherType(type: String) async throws {
            let folder = try TemporaryFolder()
            let small = try writeSmallDump(in: folder)
            let file = try await makeSnapshot(of: small, codec: "f16", in: folder)
            let result = try await BuiltCommand.run("restore", file, "-o", folder.file("b"), "--type", type)
            #expect(result.status == 0)
            let before = try CacheDump.read(path: small)
            let after = try CacheDump.read(path: folder.file("b"))
            #expect(after.elementType.name == type.uppercased())
            let tolerance: Float = type == "bf16" ? 1 / 256 : 0
            for (x, y) in zip(before.layers[1].values.numbers, after.layers[1].values.numbers) {
                #expect(abs(x - y) <= abs(x) * tolerance)
            }
        }

        @Test(
            "a cache of one token works",
            arguments: ["f16", "kivi(bits=2)", "kivi(bits=2,residual=0)", "think(keys=0.4)+kivi(bits=2)"]
        )
        func oneToken(codec: String) async throws {
            let folder = try TemporaryFolder()
            let small = try writeSmallDump(in: folder, tokens: 1)
            let file = folder.file("a.tkv")
            let result = try await BuiltCommand.run("snapshot", small, "-o", file, "--codec", codec, "--json")
            #expect(result.status == 0)
            let report = try Inspection(result)
            #expect(report.tokenCounts == [1, 0, 1])
            #expect(report.quality?.attentionError == 0)
            #expect(try await BuiltCommand.run("verify", file).status == 0)
            #expect(try await BuiltCommand.run("compare", small, file).status == 0)
            #expect(try await BuiltCommand.run("restore", file, "-o", folder.file("b")).status == 0)
            let before = try CacheDump.read(path: small)
            let after = try CacheDump.read(path: folder.file("b"))
            #expect(after.tokenCount == 1)
            #expect(after.layers.map(\.keys.packedBytes) == before.layers.map(\.keys.packedBytes))
            #expect(after.layers.map(\.values.packedBytes) == before.layers.map(\.values.packedBytes))
        }

        @Test("a dump without queries is compared by keys and values alone")
        func withoutQueries() async throws {
            let folder = try TemporaryFolder()
            let small = try writeSmallDump(in: folder) {
                $0 = $0.removing("layers.0.queries").removing("layers.1.queries")
            }
            let file = folder.file("a.tkv")
            let result = try await BuiltCommand.run(
                "snapshot",
                small,
                "-o",
                file,
                "--codec",
                "kivi(bits=2,residual=0)",
                "--json"
            )
            let report = try Inspection(result)
            #expect(report.queryHeads == nil)
            #expect(report.quality.map { $0.keyError > 0 && $0.scoreError == nil && $0.attentionError == nil } == true)
            let compare = try await BuiltCommand.run("compare", small, file, "--json")
            #expect(
                Set(try json(compare).keys) == ["recipe", "bitsPerValue", "ratio", "keyError", "valueError", "layers"]
            )
        }

        @Test("a profile stands in for queries, and so do key norms")
        func profileForQueries() async throws {
            let folder = try TemporaryFolder()
            let small = try writeSmallDump(in: folder, tokens: 100) {
                $0 = $0.removing("layers.0.queries").removing("layers.1.queries")
            }
            var profiles = SafetensorsBuilder()
            for layer in 0..<2 {
                profiles.tensors.append(
                    .init("layers.\(layer).q2", [2, 16], floats: (0..<32).map { Float($0 % 16 < 8 ? 1 : 0) })
                )
            }
            try profiles.write(to: folder.file("profile"))
            let result = try await BuiltCommand.run(
                "snapshot",
                small,
                "-o",
                folder.file("a.tkv"),
                "--codec",
                "think(keys=0.5)",
                "--profile",
                folder.file("profile"),
                "--json"
            )
            #expect(result.status == 0)
            #expect(try Inspection(result).keptKeyChannels == [8, 8])
            let plans = try SnapshotReader(path: folder.file("a.tkv")).plans
            #expect(plans.flatMap(\.heads).allSatisfy { $0.keyRuns[0].channels == Array(0..<8) })
            let norms = try await BuiltCommand.run(
                "snapshot",
                small,
                "-o",
                folder.file("b.tkv"),
                "--codec",
                "think(keys=0.5,score=keys)"
            )
            #expect(norms.status == 0)
        }

        @Test("verify tells of several files which are sound")
        func verifySeveral() async throws {
            let folder = try TemporaryFolder()
            let good = try await makeSnapshot(of: try writeSmallDump(in: folder), in: folder)
            var damaged = try SnapshotSurgery(path: good)
            let pages = try #require(damaged.section(7)).range
            damaged.bytes[pages.lowerBound] ^= 1
            let bad = folder.file("bad.tkv")
            try Data(damaged.bytes).write(to: URL(filePath: bad))
            let text = try await BuiltCommand.run("verify", bad, good, folder.file("none.tkv"))
            #expect(text.status == 1)
            #expect(text.output == "\(good): sound\n")
            let lines = text.errors.split(separator: "\n")
            #expect(lines.count == 2)
            #expect(lines.allSatisfy { $0.hasPrefix("think-compress: ") })
            #expect(lines.first?.contains("\(bad): ") == true)
            #expect(lines.first?.contains("checksumMismatch at byte \(pages.lowerBound)") == true)
            #expect(lines.last?.contains(folder.file("none.tkv")) == true)

            let result = try await BuiltCommand.run("verify", bad, good, folder.file("none.tkv"), "--json")
            #expect(result.status == 1)
            struct Report: Decodable {
                struct Fault: Decodable {
                    let code: String?
                    let offset: Int?
                    let message: String
                }
                let file: String
                let sound: Bool
                let fault: Fault?
            }
            let reports = try JSONDecoder().decode([Report].self, from: Data(result.output.utf8))
            #expect(reports.map(\.file) == [bad, good, folder.file("none.tkv")])
            #expect(reports.map(\.sound) == [false, true, false])
            #expect(reports.map(\.fault?.code) == ["checksumMismatch", nil, nil])
            #expect(reports.map(\.fault?.offset) == [pages.lowerBound, nil, nil])
            #expect(reports[2].fault?.message.contains("none.tkv") == true)
        }
    }
}

extension [UInt8] {
    /// The bytes as float16 numbers.
    fileprivate var halves: [Double] {
        stride(from: 0, to: count, by: 2).map {
            Double(Float16(bitPattern: UInt16(self[$0]) | UInt16(self[$0 + 1]) << 8))
        }
    }
}
