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
        #expect(reader.recipe.description == test.recipe)
        #expect(reader.plans == compressed.layers.map(\.plans))
        #expect(reader.header.tokenCount == test.tokens)
        #expect(reader.header.geometry.layers[0].queryHeads == 4)
        #expect(reader.sections.contains { $0.coding == .zstd } == (test.level != nil))
        let bytes = try Data(contentsOf: URL(filePath: folder.file("a.tkv")))
        #expect(reader.fileByteCount == bytes.count)
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
        #expect(reader.header.geometry.layers[0].queryHeads == 0)
        #expect(reader.sections.map(\.kind) == [.recipe, .plan, .pages, .pageTable, .window])
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
