import Foundation
import TestSupport
import Testing
import ThinkCompress

/// What is written comes back as it was.
@Suite struct SnapshotRoundTripTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let recipe: String
        var type = ElementType.float16
        var tokens = 300
        var level: Int?
        var testDescription: String {
            "\(recipe), \(type.name), \(tokens) tokens" + (level.map { ", zstd \($0)" } ?? "")
        }
    }

    static let cases =
        [
            Case(recipe: "f16"),
            Case(recipe: "bf16", type: .bfloat16),
            Case(recipe: "f32", type: .float32, tokens: 70),
            Case(recipe: "kivi(bits=2)"),
            Case(recipe: "kivi(bits=2)", tokens: 1),
            Case(recipe: "kivi(bits=2,residual=0)", tokens: 256),
            Case(recipe: "kivi(bits=4,group=64,residual=0)", type: .float32),
            Case(recipe: "kivi(keys=8,values=4,group=128)", type: .bfloat16),
            Case(recipe: "think(keys=0.4)"),
            Case(recipe: "think(keys=0.5,restore=mean)+kivi(bits=2,residual=32)", tokens: 550),
        ]
        + [1, 3, 19].flatMap { level in
            [
                Case(recipe: "f16", tokens: 70, level: level),
                Case(recipe: "think(keys=0.4)+kivi(bits=2,residual=32)", tokens: 550, level: level),
            ]
        }

    static func makeCache(_ test: Case) throws -> KVCache {
        var model = TestCache()
        model.headDimension = 20
        model.tokens = test.tokens
        model.elementType = test.type
        model.window = min(32, test.tokens)
        return try model.makeQuickly().withPositions()
    }

    @Test("a cache comes back with all that it had", arguments: cases)
    func comesBack(_ test: Case) async throws {
        let folder = try TemporaryFolder()
        let cache = try Self.makeCache(test)
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe(test.recipe))
        let quality = try await CacheComparison(original: cache, compressed: compressed).measure()
        try await SnapshotWriter(compressionLevel: test.level)
            .write(compressed, quality: quality, to: folder.file("a.tkv"))
        #expect(folder.content == ["a.tkv"])

        let reader = try SnapshotReader(path: folder.file("a.tkv"))
        try await reader.verify()
        let loaded = try await reader.cache()
        #expect(CacheContent(loaded).difference(from: CacheContent(compressed)) == nil)
        #expect(loaded.geometry == compressed.geometry)
        #expect(loaded.shape == compressed.shape)
        #expect(loaded.tokens == cache.tokens)
        #expect(loaded.positions == cache.positions)
        #expect(loaded.profile != nil)
        #expect(reader.quality == quality)
        #expect(reader.quality?.total.attention != nil)
        #expect(reader.metadata == cache.metadata)
        #expect(reader.recipe?.description == test.recipe)
        #expect(reader.plans == compressed.layers.map(\.plan))
        #expect(reader.header.tokenCount == test.tokens)
        #expect(reader.geometry.layers[0].queryHeads == 4)
        #expect(reader.sections.contains { $0.coding == .zstd } == (test.level != nil))
        let bytes = try Data(contentsOf: URL(filePath: folder.file("a.tkv")))
        #expect(reader.fileByteCount == bytes.count)
    }

    static let mixedCases = [
        Case(recipe: "f16", tokens: 340),
        Case(recipe: "kivi(bits=2)", tokens: 340),
        Case(recipe: "kivi(bits=4,residual=0)", type: .bfloat16, tokens: 352),
        Case(recipe: "kivi(bits=8,group=128)", type: .float32, tokens: 600),
        Case(recipe: "think(keys=0.4,restore=mean)+kivi(bits=2,residual=32)", tokens: 550, level: 3),
    ]

    @Test("layers of every kind come back with all that they had", arguments: mixedCases, [0, 4, 40])
    func mixedLayersComeBack(_ test: Case, sinks: Int) async throws {
        let folder = try TemporaryFolder()
        var model = MixedCache()
        model.elementType = test.type
        model.tokens = test.tokens
        let cache = try model.make()
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe(test.recipe), sinks: sinks)
        let quality = try await CacheComparison(original: cache, compressed: compressed).measure()
        let writer = SnapshotWriter(compressionLevel: test.level)
        let size = try await writer.write(compressed, quality: quality, to: folder.file("a.tkv"))
        let reader = try SnapshotReader(path: folder.file("a.tkv"))
        try await reader.verify()
        let loaded = try await reader.cache()
        #expect(CacheContent(loaded).difference(from: CacheContent(compressed)) == nil)
        #expect(loaded.geometry == cache.geometry)
        #expect(loaded.layers.map(\.held) == cache.layers.map(\.held))
        #expect(loaded.layers.map(\.state) == cache.layers.map(\.state))
        // Eight first tokens are listed, so that layer has no more sinks.
        #expect(reader.layerOutlines.map(\.sinks) == [sinks, 0, sinks > 8 ? 0 : sinks, 0, sinks, sinks, 0])
        #expect(reader.layerOutlines.map(\.held) == [.all, .last, .listed, .none, .all, .all, .last])
        #expect(reader.quality == quality)
        #expect(reader.summary.size == size)

        // What is in full precision comes back to the bit.
        for (original, layer) in zip(cache.layers, loaded.layers) where test.recipe == "f16" {
            let restored = try layer.decompress(rows: 0..<layer.rowCount, as: test.type)
            #expect(restored.keys.hasSameBits(as: original.keys))
            #expect(restored.values.hasSameBits(as: original.values))
        }
    }

    @Test("a snapshot in memory has the bytes and sizes of the file", arguments: [nil, 3], [false, true])
    func bytesInMemory(level: Int?, isMixed: Bool) async throws {
        let folder = try TemporaryFolder()
        var model = MixedCache()
        let cache = try isMixed ? model.make() : Self.makeCache(Case(recipe: "", tokens: 550))
        let compressed = try await CompressedCache(
            compressing: cache,
            recipe: Recipe("kivi(bits=2,residual=32)"),
            sinks: 4
        )
        let quality = try await CacheComparison(original: cache, compressed: compressed).measure()
        let writer = SnapshotWriter(compressionLevel: level)
        let size = try await writer.write(compressed, quality: quality, to: folder.file("a.tkv"))
        var snapshot = SnapshotBytes()
        let sizeInMemory = try await writer.write(compressed, quality: quality, into: &snapshot)
        let isSame = snapshot.bytes == (try fileBytes(folder.file("a.tkv")))
        #expect(isSame)
        #expect(size.fileBytes == snapshot.bytes.count)
        #expect(sizeInMemory == size)
        #expect(try await writer.size(of: compressed, quality: quality) == size)

        let file = SnapshotSurgery(snapshot.bytes)
        #expect(size.sections.map { Int($0.kindNumber) } == file.sections.map(\.kind))
        #expect(size.sections.map(\.storedLength) == file.sections.map(\.range.count))
        typealias Kind = SnapshotSurgery.Kind
        let others = [Kind.profile, Kind.quality]
        let payload = file.sections.filter {
            (Kind.geometry...Kind.state).contains($0.kind) && !others.contains($0.kind)
        }
        #expect(size.payloadBytes == payload.reduce(0) { $0 + $1.range.count })
        let loaded = try await SnapshotReader(SharedBytes(snapshot.bytes)).cache()
        #expect(CacheContent(loaded).difference(from: CacheContent(compressed)) == nil)
    }

    @Test("a cache whose layers all have nothing comes back", arguments: [false, true])
    func cacheWithoutKeys(hasState: Bool) async throws {
        let state = hasState ? [LayerState(name: "ssm", bytes: SharedBytes([3, 1, 4]))] : []
        let cache = try KVCache(
            layers: [KVCacheLayer(elementType: .float32), KVCacheLayer(elementType: .float32, state: state)],
            tokenCount: 5
        )
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("kivi(bits=2)"))
        var snapshot = SnapshotBytes()
        try await SnapshotWriter().write(compressed, into: &snapshot)
        let reader = try SnapshotReader(SharedBytes(snapshot.bytes))
        try await reader.verify()
        #expect(reader.sections.map(\.kind) == [.recipe, .geometry] + (hasState ? [.state] : []))
        #expect(reader.plans.allSatisfy { $0.heads.isEmpty })
        #expect(reader.summary.bitsPerValue == nil)
        let loaded = try await reader.cache()
        #expect(CacheContent(loaded).difference(from: CacheContent(compressed)) == nil)
        #expect(loaded.tokenCount == 5)
    }

    @Test("a file tells why its cache can be reused whole only, as the cache does")
    func wholeOnly() async throws {
        let full = try Self.makeCache(Case(recipe: "f16", tokens: 40))
        let state = [LayerState(name: "conv", bytes: SharedBytes([1]))]
        func rows(_ layer: KVCacheLayer, _ range: Range<Int>, held: HeldTokens) -> KVCacheLayer {
            KVCacheLayer(keys: layer.keys[tokens: range], values: layer.values[tokens: range], held: held)
        }
        let layer = rows(full.layers[0], 0..<40, held: .all)
        let lists = [[UInt32]](repeating: (0..<40).map { $0 }, count: 2)
        let (some, hasState) = ("does not hold all tokens", "has state that belongs to all tokens")
        let cases: [(layer: KVCacheLayer, reason: String?)] = [
            (layer, nil),
            (KVCacheLayer(elementType: .float16), nil),
            (rows(full.layers[1], 30..<40, held: .last), some),
            (rows(full.layers[1], 0..<40, held: .listed(lists)), some),
            (KVCacheLayer(elementType: .float16, state: state), hasState),
            (KVCacheLayer(keys: layer.keys, values: layer.values, state: state), hasState),
        ]
        for (index, test) in cases.enumerated() {
            let cache = try KVCache(layers: [layer, test.layer])
            let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("f16"))
            var snapshot = SnapshotBytes()
            try await SnapshotWriter().write(compressed, into: &snapshot)
            let reader = try SnapshotReader(SharedBytes(snapshot.bytes))
            var loaded = try await reader.cache()
            // Whose state it is, a reader knows once it has read it.
            let subject = test.reason == hasState ? "a layer" : "layer 1"
            #expect(reader.wholeOnlyReason == test.reason.map { "\(subject) \($0)" }, "case \(index)")
            #expect(loaded.wholeOnlyReason == test.reason.map { "layer 1 \($0)" }, "case \(index)")
            if test.reason != nil {
                let error = #expect(throws: CodecError.self) { try loaded.truncate(to: 20) }
                #expect(error?.code == .partialCache)
                #expect(loaded.tokenCount == 40)
            } else {
                try loaded.truncate(to: 20)
                #expect(loaded.tokenCount == 20)
            }
        }
    }

    @Test("a recipe of unknown codecs keeps nobody from using the cache")
    func unknownRecipe() async throws {
        let cache = try Self.makeCache(Case(recipe: "", tokens: 300))
        let record = RecipeRecord(stages: [
            .init(codecNumber: 77, text: "wavelet(levels=3)"), .init(codecNumber: .max, text: " ~ not a stage"),
        ])
        var compressed = try await CompressedCache(
            compressing: cache,
            recipe: Recipe("think(keys=0.4)+kivi(bits=2,residual=32)")
        ).with(recipe: record)
        var snapshot = SnapshotBytes()
        try await SnapshotWriter().write(compressed, into: &snapshot)
        let reader = try SnapshotReader(SharedBytes(snapshot.bytes))
        try await reader.verify()
        #expect(reader.recipe == record)
        #expect(throws: RecipeError.self) { try Recipe(record, registry: .standard) }
        var loaded = try await reader.cache()
        #expect(CacheContent(loaded).difference(from: CacheContent(compressed)) == nil)

        let slice = try cache.slice(0..<70)
        try loaded.append(slice.layers, tokens: slice.tokens)
        try compressed.append(slice.layers, tokens: slice.tokens)
        #expect(CacheContent(loaded).difference(from: CacheContent(compressed)) == nil)
        let workers = WorkerThreads(threadCount: 1)
        for (layer, expected) in zip(loaded.layers, compressed.layers) {
            let queries = try #require(cache.layers[layer.index].queries)
            var outputs: [[Float]] = []
            for layer in [layer, expected] {
                var output = [Float](repeating: 0, count: queries.heads * queries.tokens * 20)
                var span = output.mutableSpan
                try Attention().attend(queries, over: layer, using: workers, into: &span)
                outputs.append(output)
            }
            #expect(outputs[0] == outputs[1])
            #expect(outputs[0].contains { $0 != 0 })
        }
    }

    @Test("a recipe that the format can't say is refused and nothing is written")
    func unsayableRecipe() async throws {
        let compressed = try await CompressedCache(
            compressing: Self.makeCache(Case(recipe: "f16", tokens: 2)),
            recipe: Recipe("f16")
        )
        let stages = ["", String(repeating: "s", count: 1025), "tab\t", "größer"].map { [$0] }
        for texts in stages + [[], [String](repeating: "f16", count: 9)] {
            let record = RecipeRecord(stages: texts.map { .init(codecNumber: 1, text: $0) })
            var snapshot = SnapshotBytes()
            await #expect(throws: SnapshotWritingError.self) {
                try await SnapshotWriter().write(compressed.with(recipe: record), into: &snapshot)
            }
            #expect(snapshot.bytes.isEmpty)
        }
    }

    @Test("sinks that the format can't say are refused", arguments: [(9, 2), (65, 0), (-1, 0), (4, 1)])
    func unsayableSinks(count: Int, layer: Int) async throws {
        var model = MixedCache()
        let cache = try model.make()
        // The first layers that can't have them: listed tokens begin with eight, and layer 1 holds the last.
        let layers = count == 9 ? [cache.layers[0], cache.layers[0], cache.layers[2]] : Array(cache.layers[0...1])
        let partial = try KVCache(layers: layers, tokenCount: cache.tokenCount)
        let recipe = try Recipe(SinkStage(count: count, isForced: true), FullPrecisionCodec(elementType: .float16))
        let error = await #expect(throws: CodecError.self) {
            try await CompressedCache(compressing: partial, recipe: recipe)
        }
        #expect(error?.code == .unsupportedPlan)
        #expect(error?.layer == layer)
    }

    @Test("state that the format can't say is refused and nothing is written")
    func unsayableState() async throws {
        for name in ["", String(repeating: "n", count: 257)] {
            let state = [LayerState(name: name, bytes: SharedBytes([1]))]
            let cache = try KVCache(layers: [KVCacheLayer(elementType: .float16, state: state)], tokenCount: 1)
            let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("f16"))
            var snapshot = SnapshotBytes()
            await #expect(throws: SnapshotWritingError.self) {
                try await SnapshotWriter().write(compressed, into: &snapshot)
            }
            #expect(snapshot.bytes.isEmpty)
        }
    }

    @Test("a cache without queries, tokens, positions or metadata comes back")
    func bareCacheComesBack() async throws {
        let folder = try TemporaryFolder()
        let full = try Self.makeCache(Case(recipe: "f16"))
        let cache = try KVCache(layers: full.layers.map { KVCacheLayer(keys: $0.keys, values: $0.values) })
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("kivi(bits=4)"))
        try await SnapshotWriter().write(compressed, to: folder.file("a.tkv"))
        let reader = try SnapshotReader(path: folder.file("a.tkv"))
        try await reader.verify()
        let loaded = try await reader.cache()
        #expect(CacheContent(loaded).difference(from: CacheContent(compressed)) == nil)
        #expect(loaded.tokens == nil)
        #expect(loaded.positions == nil)
        #expect(loaded.profile == nil)
        #expect(loaded.metadata == [:])
        #expect(reader.quality == nil)
        #expect(reader.geometry.layers[0].queryHeads == 0)
        #expect(reader.sections.map(\.kind) == [.recipe, .geometry, .plan, .pages, .pageTable, .window])
    }

    @Test("quality without scores comes back without scores")
    func qualityWithoutScores() async throws {
        let folder = try TemporaryFolder()
        let compressed = try await CompressedCache(
            compressing: Self.makeCache(Case(recipe: "f16", tokens: 40)),
            recipe: Recipe("f16")
        )
        let row = CompressionQuality.Errors(keys: 0.25, values: 0, scores: nil, attention: nil)
        let quality = CompressionQuality(layers: [row, row], total: row)
        try await SnapshotWriter().write(compressed, quality: quality, to: folder.file("a.tkv"))
        let reader = try SnapshotReader(path: folder.file("a.tkv"))
        #expect(reader.quality == quality)
    }

    @Test("quality that isn't finite is left out")
    func infiniteQualityIsLeftOut() async throws {
        let folder = try TemporaryFolder()
        let compressed = try await CompressedCache(
            compressing: Self.makeCache(Case(recipe: "f16", tokens: 40)),
            recipe: Recipe("f16")
        )
        let row = CompressionQuality.Errors(keys: .nan, values: .infinity, scores: nil, attention: nil)
        try await SnapshotWriter().write(
            compressed,
            quality: CompressionQuality(layers: [row, row], total: row),
            to: folder.file("a.tkv")
        )
        let reader = try SnapshotReader(path: folder.file("a.tkv"))
        try await reader.verify()
        #expect(reader.quality == nil)
    }

    @Test("raw pages and windows are used where they lie, frames are not", arguments: [nil, 3])
    func rawBytesLieInPlace(level: Int?) async throws {
        let folder = try TemporaryFolder()
        let compressed = try await CompressedCache(
            compressing: Self.makeCache(Case(recipe: "", tokens: 550)),
            recipe: Recipe("kivi(bits=2,residual=32)")
        )
        try await SnapshotWriter(compressionLevel: level).write(compressed, to: folder.file("a.tkv"))
        let file = try MappedFile.bytes(path: folder.file("a.tkv"))
        let loaded = try await SnapshotReader(file).cache()
        func isInFile(_ bytes: SharedBytes) -> Bool {
            file.withUnsafeBytes { whole in
                bytes.withUnsafeBytes { part in
                    guard let base = whole.baseAddress, let start = part.baseAddress else { return false }
                    return start >= base && start + part.count <= base + whole.count
                }
            }
        }
        for layer in loaded.layers {
            for head in 0..<2 {
                for block in 0..<layer.extent.blocks.count {
                    #expect(isInFile(layer.block(block, head: head)) == (level == nil))
                }
            }
            let window = try #require(layer.residualWindow)
            #expect(isInFile(window.keys.bytes) == (level == nil))
            #expect(isInFile(window.values.bytes) == (level == nil))
        }
    }

    @Test("the same cache gives the same bytes", arguments: [nil, 1, 19])
    func sameBytes(level: Int?) async throws {
        let folder = try TemporaryFolder()
        for name in ["a.tkv", "b.tkv"] {
            let compressed = try await CompressedCache(
                compressing: Self.makeCache(Case(recipe: "", tokens: 550)),
                recipe: Recipe("think(keys=0.4)+kivi(bits=2,residual=32)")
            )
            try await SnapshotWriter(compressionLevel: level).write(compressed, to: folder.file(name))
        }
        let files = try ["a.tkv", "b.tkv"].map { try Data(contentsOf: URL(filePath: folder.file($0))) }
        #expect(files[0] == files[1])
    }

    @Test("metadata that the format can't say is refused and nothing is written")
    func unsayableMetadata() async throws {
        let folder = try TemporaryFolder()
        let small = try Self.makeCache(Case(recipe: "f16", tokens: 2))
        let cases = [
            ["": "empty key"],
            [String(repeating: "k", count: 257): "long key"],
            ["k": String(repeating: "v", count: 65537)],
            Dictionary(uniqueKeysWithValues: (0..<1025).map { ("key \($0)", "") }),
        ]
        for metadata in cases {
            let cache = try KVCache(layers: small.layers, metadata: metadata)
            let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("f16"))
            await #expect(throws: SnapshotWritingError.self) {
                try await SnapshotWriter().write(compressed, to: folder.file("a.tkv"))
            }
        }
        #expect(folder.content == [])
    }

    @Test("metadata at the format's limits comes back, in any script")
    func longMetadata() async throws {
        let folder = try TemporaryFolder()
        let small = try Self.makeCache(Case(recipe: "f16", tokens: 2))
        var metadata = Dictionary(uniqueKeysWithValues: (0..<1022).map { ("key \($0)", "value \($0)") })
        metadata[String(repeating: "k", count: 256)] = String(repeating: "v", count: 65536)
        metadata["ключ ключ 鍵 🔑"] = "\u{0}\n値"
        let cache = try KVCache(layers: small.layers, metadata: metadata)
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("f16"))
        try await SnapshotWriter().write(compressed, to: folder.file("a.tkv"))
        let reader = try SnapshotReader(path: folder.file("a.tkv"))
        try await reader.verify()
        #expect(reader.metadata == metadata)
    }
}
