import Foundation
import TestSupport
import Testing
import ThinkCompress

extension BuiltCommandTests {
    /// Caches whose layers differ and don't all hold all tokens, the whole way.
    @Suite struct PartlyHeldTests {
        struct Case: Sendable, CustomTestStringConvertible {
            let model: SmallModel
            let recipe: String
            /// Sinks of the layers that can have them, of which no recipe tells yet.
            var sinks = 0
            /// What each layer has in blocks.
            let blockTokens: [Int]
            /// The most that any relative error may be.
            let bound: Double
            var testDescription: String { "\(model), \(recipe), \(sinks) sinks" }

            /// What `inspect` must say of the layers.
            var layerShapes: [LayerShape] {
                func shape(_ kvHeads: Int, _ keys: Int, _ values: Int, _ held: String, _ rows: Int, _ layer: Int)
                    -> LayerShape
                {
                    LayerShape(
                        queryHeads: held == "none" ? nil : 4,
                        kvHeads: kvHeads,
                        keyDim: keys,
                        valueDim: values,
                        held: held,
                        heldTokens: rows,
                        blockTokens: blockTokens[layer],
                        windowTokens: rows - blockTokens[layer],
                        sinks: held == "all" || held == "listed" ? sinks : 0
                    )
                }
                switch model {
                case .gemma3:
                    return (0..<5).map { shape(2, 16, 16, "last", 64, $0) } + [shape(1, 32, 32, "all", 300, 5)]
                case .hybrid:
                    return [
                        shape(0, 0, 0, "none", 0, 0), shape(2, 24, 12, "all", 400, 1), shape(0, 0, 0, "none", 0, 2),
                        shape(2, 16, 16, "listed", 330, 3),
                    ]
                }
            }
        }

        struct LayerShape: Decodable, Equatable {
            let queryHeads: Int?
            let kvHeads: Int
            let keyDim: Int
            let valueDim: Int
            let held: String
            let heldTokens: Int
            let blockTokens: Int
            let windowTokens: Int
            let sinks: Int
        }

        /// Of 300 tokens 288, 256 or 160 are in blocks, by a window of 0, 32 or 128; the sliding layers begin at 236. The
        /// hybrid's layers have 400 and 330.
        static let cases = [
            Case(model: .gemma3, recipe: "f16", blockTokens: [52, 52, 52, 52, 52, 288], bound: 0),
            Case(model: .gemma3, recipe: "f16", sinks: 4, blockTokens: [52, 52, 52, 52, 52, 288], bound: 0),
            Case(
                model: .gemma3,
                recipe: "kivi(bits=8,residual=32)",
                blockTokens: [20, 20, 20, 20, 20, 256],
                bound: 0.01
            ),
            Case(
                model: .gemma3,
                recipe: "think(keys=0.4)+kivi(bits=2)",
                blockTokens: [0, 0, 0, 0, 0, 160],
                bound: 0.9
            ),
            Case(
                model: .gemma3,
                recipe: "think(keys=0.4)+kivi(bits=2,residual=32)",
                blockTokens: [20, 20, 20, 20, 20, 256],
                bound: 0.9
            ),
            Case(
                model: .gemma3,
                recipe: "think(keys=0.4)+kivi(bits=2,residual=32)",
                sinks: 4,
                blockTokens: [20, 20, 20, 20, 20, 256],
                bound: 0.9
            ),
            Case(model: .hybrid, recipe: "f16", blockTokens: [0, 384, 0, 320], bound: 0),
            Case(
                model: .hybrid,
                recipe: "think(keys=0.4)+kivi(bits=2,residual=32)",
                blockTokens: [0, 352, 0, 288],
                bound: 0.9
            ),
            Case(
                model: .hybrid,
                recipe: "kivi(bits=8,residual=32)",
                sinks: 8,
                blockTokens: [0, 352, 0, 288],
                bound: 0.01
            ),
        ]

        @Test("such a cache goes the whole way", arguments: cases)
        func wholeWay(_ test: Case) async throws {
            let folder = try TemporaryFolder()
            let (dump, file) = (folder.file("dump.safetensors"), folder.file("a.tkv"))
            try SafetensorsBuilder(test.model.cache()).write(to: dump)
            // As the dump has it, to the bit.
            let cache = try CacheDump.read(path: dump)
            let compressed = try await CompressedCache(
                compressing: cache,
                recipe: Recipe(test.recipe),
                sinks: test.sinks
            )
            if test.sinks == 0 {
                let result = try await BuiltCommand.run("snapshot", dump, "-o", file, "--codec", test.recipe, "--json")
                try #require(result.status == 0, "\(result.errors)")
                #expect(result.output == (try await BuiltCommand.run("inspect", file, "--json")).output)
            } else {
                let quality = try await CacheComparison(original: cache, compressed: compressed).measure()
                try await SnapshotWriter().write(compressed, quality: quality, to: file)
            }
            let loaded = try await SnapshotReader(path: file).cache()
            #expect(CacheContent(loaded).difference(from: CacheContent(compressed)) == nil)
            try await checkInspection(of: file, test)
            let verify = try await BuiltCommand.run("verify", file)
            #expect(verify.status == 0)
            #expect(verify.output == "\(file): sound\n")
            try await checkComparison(of: cache, dump: dump, loaded, file: file, bound: test.bound)
            try await checkRestoring(
                of: loaded,
                file: file,
                dump: dump,
                isExact: test.bound == 0,
                partLayer: test.model == .gemma3 ? 0 : 3,
                in: folder
            )
            try checkAttention(queries: cache, over: loaded)
        }

        private func checkInspection(of file: String, _ test: Case) async throws {
            struct Report: Decodable {
                let layerShapes: [LayerShape]
                let tokens: Int
                let recipe: String
            }
            let inspect = try await BuiltCommand.run("inspect", file, "--json")
            let report = try JSONDecoder().decode(Report.self, from: Data(inspect.output.utf8))
            #expect(report.layerShapes == test.layerShapes)
            #expect(report.tokens == test.model.tokenCount)
            #expect(report.recipe == test.recipe)
            let text = try await BuiltCommand.run("inspect", file)
            #expect(text.output.contains(", \(test.sinks) of them sinks, ") == (test.sinks > 0))
            // Layers differ, so nothing is said of all of them.
            #expect(try Set(json(inspect).keys).isDisjoint(with: ["queryHeads", "kvHeads", "headDim"]))
        }

        /// Compares the errors with those of what is held, added up here.
        private func checkComparison(
            of cache: KVCache,
            dump: String,
            _ loaded: CompressedCache,
            file: String,
            bound: Double
        ) async throws {
            struct Comparison: Decodable {
                let layers: [Inspection.Errors]
            }
            let compare = try await BuiltCommand.run("compare", dump, file, "--json")
            try #require(compare.status == 0, "\(compare.errors)")
            let output = Data(compare.output.utf8)
            let total = try JSONDecoder().decode(Inspection.Errors.self, from: output)
            let layers = try JSONDecoder().decode(Comparison.self, from: output).layers
            #expect(try Inspection.quality(await BuiltCommand.run("inspect", file, "--json")) == total)
            try #require(layers.count == cache.layers.count)
            var sums = [ErrorSum](repeating: ErrorSum(), count: 4)
            for (index, errors) in layers.enumerated() {
                let original = cache.layers[index]
                guard let queries = original.queries else {
                    #expect(errors == .init(keyError: 0, valueError: 0, scoreError: nil, attentionError: nil))
                    #expect(original.isEmpty)
                    continue
                }
                let restored = try loaded.layers[index].decompress(rows: 0..<original.keys.tokens, as: .float32)
                #expect(restored.held == original.held)
                let (exact, lossy) = (
                    ReferenceAttention(queries, over: [original], tokenCount: cache.tokenCount),
                    ReferenceAttention(queries, over: [restored], tokenCount: cache.tokenCount)
                )
                func doubles(_ tensor: KVTensor) -> [Double] { tensor.numbers.map(Double.init) }
                let own = [
                    ErrorSum(doubles(original.keys), doubles(restored.keys)),
                    ErrorSum(doubles(original.values), doubles(restored.values)),
                    ErrorSum(exact.scores, lossy.scores), ErrorSum(exact.output, lossy.output),
                ]
                try check(errors, own, bound: bound)
                for part in sums.indices { sums[part].add(own[part]) }
            }
            try check(total, sums, bound: bound)
        }

        private func check(_ errors: Inspection.Errors, _ own: [ErrorSum], bound: Double) throws {
            let found = [
                errors.keyError, errors.valueError, try #require(errors.scoreError),
                try #require(errors.attentionError),
            ]
            for (found, own) in zip(found, own) {
                #expect(abs(found - own.relative) <= 1e-5 + 1e-4 * own.relative)
                #expect(found <= bound)
                if bound == 0 { #expect(own.relative == 0) }
            }
        }

        private func checkRestoring(
            of loaded: CompressedCache,
            file: String,
            dump: String,
            isExact: Bool,
            partLayer: Int,
            in folder: TemporaryFolder
        ) async throws {
            let path = folder.file("restored.safetensors")
            let some = try await BuiltCommand.run("restore", file, "-o", path, "--tokens", "200")
            expectBadInput(
                some,
                naming: file,
                "can be restored whole only, as layer \(partLayer) does not hold all tokens; leave out --tokens"
            )
            #expect(folder.content == ["a.tkv", "dump.safetensors"])

            let restore = try await BuiltCommand.run("restore", file, "-o", path)
            try #require(restore.status == 0, "\(restore.errors)")
            let before = try SafetensorsFile(MappedFile.bytes(path: dump))
            let after = try SafetensorsFile(MappedFile.bytes(path: path))
            // Queries became a profile.
            let kept = before.tensors.names.filter { !$0.hasSuffix(".queries") }
            #expect(Set(after.tensors.names.filter { !$0.hasSuffix(".q2") }) == Set(kept))
            #expect(after.metadata == before.metadata)
            for name in kept {
                #expect(after.tensors[name]?.elementType == before.tensors[name]?.elementType, "\(name)")
                #expect(after.tensors[name]?.shape == before.tensors[name]?.shape, "\(name)")
                let isCoded = name.hasSuffix(".keys") || name.hasSuffix(".values")
                if isExact || !isCoded {
                    #expect(after.tensors[name]?.bytes.data == before.tensors[name]?.bytes.data, "\(name)")
                }
            }
            for (index, layer) in loaded.layers.enumerated() {
                let restored = try layer.decompress(rows: 0..<layer.rowCount, as: .float16)
                #expect(after.tensors["layers.\(index).keys"]?.bytes.data == Data(restored.keys.packedBytes))
                #expect(after.tensors["layers.\(index).values"]?.bytes.data == Data(restored.values.packedBytes))
            }
        }

        private func checkAttention(queries cache: KVCache, over loaded: CompressedCache) throws {
            let workers = WorkerThreads(threadCount: 2)
            for (layer, original) in zip(loaded.layers, cache.layers) {
                guard let queries = original.queries else { continue }
                let restored = try layer.decompress(rows: 0..<layer.rowCount, as: .float32)
                for window in [nil, SmallModel.slidingWindow] {
                    let attention = Attention(slidingWindow: window, precision: .precise)
                    let count = queries.tokens * queries.heads * layer.geometry.valueDimension
                    var output = [Float](repeating: .nan, count: count)
                    var span = output.mutableSpan
                    try attention.attend(queries, over: layer, using: workers, into: &span)
                    let reference = ReferenceAttention(
                        queries,
                        over: [restored],
                        tokenCount: loaded.tokenCount,
                        attention: attention
                    )
                    #expect(reference.relativeError(of: output) < 5e-4, "layer \(layer.index), window \(window ?? 0)")
                }
            }
        }

        @Test("sinks in the window are not among the tokens in blocks")
        func sinksInWindow() async throws {
            let file = ProjectFiles.vector("valid/sinks-in-window.tkv")
            struct Report: Decodable {
                let layerShapes: [LayerShape]
            }
            let inspect = try await BuiltCommand.run("inspect", file, "--json")
            let layers = try JSONDecoder().decode(Report.self, from: Data(inspect.output.utf8)).layerShapes
            #expect(layers.map(\.sinks) == [4])
            #expect(layers.map(\.blockTokens) == [0])
            let text = try await BuiltCommand.run("inspect", file)
            #expect(text.output.contains("20: 0 in blocks of 32, 20 in full precision"))
        }

        @Test("a snapshot is not compared with a dump that holds other tokens")
        func otherTokens() async throws {
            let folder = try TemporaryFolder()
            let (dump, other) = (folder.file("dump"), folder.file("other"))
            var builder = SafetensorsBuilder(try SmallModel.hybrid.cache())
            try builder.write(to: dump)
            let file = try await makeSnapshot(of: dump, codec: "f16", in: folder)
            // The last token of the first head's list becomes another one.
            let place = (SmallModel.listedTokens - 1) * 4
            let list = builder["layers.3.held_tokens"].bytes
            let last = UInt32(list[place]) | UInt32(list[place + 1]) << 8
            let next = UInt32(list[place - 4]) | UInt32(list[place - 3]) << 8
            let replacement = last < 399 ? last + 1 : last - 1
            try #require(replacement > next)
            builder["layers.3.held_tokens"].bytes.replaceSubrange(
                place..<place + 4,
                with: littleEndianBytes(replacement)
            )
            try builder.write(to: other)
            #expect(try await BuiltCommand.run("compare", dump, file).status == 0)
            expectBadInput(
                try await BuiltCommand.run("compare", other, file),
                naming: file,
                "different tokens",
                "layer 3"
            )
        }

        @Test("a number that the type can't say is told by its token, in a later part of a list too")
        func tokenOfLargeNumber() async throws {
            let folder = try TemporaryFolder()
            let list = (0..<UInt32(300)).map { $0 + 40 }
            var numbers = [Float](repeating: 1, count: 300 * 2)
            numbers[290 * 2 + 1] = 1e30
            let tensor = KVTensor(numbers, elementType: .bfloat16, heads: 1, headDimension: 2)
            let layer = KVCacheLayer(keys: tensor, values: tensor, held: .listed([list]))
            let dump = folder.file("dump")
            try SafetensorsBuilder(KVCache(layers: [layer], tokens: (0..<340).map { $0 })).write(to: dump)
            let file = try await makeSnapshot(of: dump, codec: "bf16", in: folder)
            let result = try await BuiltCommand.run("restore", file, "-o", folder.file("b"), "--type", "F16")
            expectBadInput(result, naming: file, "which F16 can't say", "(layer 0, head 0, token 330, channel 1)")
        }
    }
}
