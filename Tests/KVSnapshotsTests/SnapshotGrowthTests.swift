import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Caches that go on growing, or are cut, before and after they were a file.
@Suite struct SnapshotGrowthTests {
    /// Recipes whose bytes depend on nothing but the tokens.
    static let recipes = ["f16", "kivi(bits=2)", "kivi(bits=4,residual=0)", "kivi(keys=8,values=2,group=64)"]
    /// Tokens per append: one, within a block, over blocks, over a page.
    static let steps = [1, 30, 31, 2, 100, 64, 271]

    private static func makeCache(tokens: Int) throws -> KVCache {
        var model = TestCache()
        model.headDimension = 20
        model.tokens = tokens
        model.window = 0
        return try model.makeQuickly().withPositions()
    }

    /// Appends the rest of a cache in steps of changing size.
    private static func grow(_ cache: inout CompressedCache, to whole: KVCache) throws {
        var start = cache.tokenCount
        var step = 0
        while start < whole.tokenCount {
            let end = min(start + steps[step % steps.count], whole.tokenCount)
            let slice = try whole.slice(start..<end)
            try cache.append(slice.layers, tokens: slice.tokens, positions: slice.positions)
            start = end
            step += 1
        }
    }

    @Test(
        "a cache that grew writes the same file as one that was compressed at once",
        arguments: recipes,
        [1, 200, 257]
    )
    func grownCacheWritesSameFile(recipe: String, prompt: Int) async throws {
        let folder = try TemporaryFolder()
        let whole = try Self.makeCache(tokens: 700)
        let recipe = try Recipe(recipe)
        let atOnce = try await CompressedCache(compressing: whole, recipe: recipe)
        var grown = try await CompressedCache(compressing: whole.slice(0..<prompt), recipe: recipe)
        try Self.grow(&grown, to: whole)
        #expect(grown.tokenCount == 700)
        try await SnapshotWriter().write(atOnce, to: folder.file("a.tkv"))
        try await SnapshotWriter().write(grown, to: folder.file("b.tkv"))
        let files = try ["a.tkv", "b.tkv"].map { try Data(contentsOf: URL(filePath: folder.file($0))) }
        #expect(files[0] == files[1])
    }

    @Test("a loaded cache grows as one in memory does, and its file stays as it is", arguments: recipes, [nil, 3])
    func loadedCacheGrows(recipe: String, level: Int?) async throws {
        let folder = try TemporaryFolder()
        let whole = try Self.makeCache(tokens: 700)
        var inMemory = try await CompressedCache(compressing: whole.slice(0..<300), recipe: Recipe(recipe))
        try await SnapshotWriter(compressionLevel: level).write(inMemory, to: folder.file("a.tkv"))
        let before = try Data(contentsOf: URL(filePath: folder.file("a.tkv")))
        let mapped = try MappedFile.bytes(path: folder.file("a.tkv"))
        let loaded = try await SnapshotReader(mapped).cache()
        var grown = loaded
        try Self.grow(&grown, to: whole)
        try Self.grow(&inMemory, to: whole)
        #expect(CacheContent(grown).difference(from: CacheContent(inMemory)) == nil)
        #expect(loaded.tokenCount == 300)
        #expect(mapped.data == before)
        #expect(try Data(contentsOf: URL(filePath: folder.file("a.tkv"))) == before)
        // What was loaded still reads the file's pages.
        let atOnce = try await CompressedCache(compressing: whole.slice(0..<300), recipe: Recipe(recipe))
        #expect(CacheContent(loaded).difference(from: CacheContent(atOnce)) == nil)
    }

    @Test(
        "a prefix of a loaded cache is the prefix of the one in memory",
        arguments: ["f16", "kivi(bits=2)", "kivi(bits=2,residual=0)"],
        [699, 600, 573, 572, 512, 300, 256, 31, 1]
    )
    func prefixOfLoadedCache(recipe: String, count: Int) async throws {
        let folder = try TemporaryFolder()
        let whole = try Self.makeCache(tokens: 700)
        var inMemory = try await CompressedCache(compressing: whole, recipe: Recipe(recipe))
        try await SnapshotWriter().write(inMemory, to: folder.file("a.tkv"))
        var loaded = try await SnapshotReader(path: folder.file("a.tkv")).cache()
        let restored = try DumpTensor.all(loaded)["layers.1.values"]
        try loaded.truncate(to: count)
        try inMemory.truncate(to: count)
        #expect(loaded.tokenCount == count)
        #expect(loaded.tokens?.count == count)
        #expect(CacheContent(loaded).difference(from: CacheContent(inMemory)) == nil)

        // What is left restores to what it did before.
        let rowBytes = 20 * 2
        let cut = try #require(DumpTensor.all(loaded)["layers.1.values"]).bytes
        for head in 0..<2 {
            let start = head * 700 * rowBytes
            #expect(
                cut[head * count * rowBytes..<(head + 1) * count * rowBytes]
                    == restored?.bytes[start..<start + count * rowBytes]
            )
        }

        try await SnapshotWriter().write(loaded, to: folder.file("b.tkv"))
        let reader = try SnapshotReader(path: folder.file("b.tkv"))
        try await reader.verify()
        let again = try await reader.cache()
        #expect(CacheContent(again).difference(from: CacheContent(loaded)) == nil)
    }

    @Test("a prefix cut at whole blocks of the window is the file of the shorter cache")
    func prefixIsFileOfShorterCache() async throws {
        let folder = try TemporaryFolder()
        let whole = try Self.makeCache(tokens: 700)
        var long = try await CompressedCache(compressing: whole, recipe: Recipe("kivi(bits=2,residual=0)"))
        let short = try await CompressedCache(
            compressing: whole.slice(0..<512),
            recipe: Recipe("kivi(bits=2,residual=0)")
        )
        try long.truncate(to: 512)
        try await SnapshotWriter().write(long, to: folder.file("a.tkv"))
        try await SnapshotWriter().write(short, to: folder.file("b.tkv"))
        let files = try ["a.tkv", "b.tkv"].map { try Data(contentsOf: URL(filePath: folder.file($0))) }
        #expect(files[0] == files[1])
    }

    @Test("the pages of the first n * 256 tokens are those of a shorter cache", arguments: [256, 512, 600])
    func pagesOfPrefix(tokens: Int) async throws {
        let folder = try TemporaryFolder()
        let whole = try Self.makeCache(tokens: 900)
        for (name, cache) in [("short.tkv", try whole.slice(0..<tokens)), ("long.tkv", whole)] {
            let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("kivi(bits=2,residual=0)"))
            try await SnapshotWriter().write(compressed, to: folder.file(name))
        }
        typealias Kind = SnapshotSurgery.Kind
        let short = try SnapshotSurgery(path: folder.file("short.tkv"))
        let long = try SnapshotSurgery(path: folder.file("long.tkv"))
        #expect(short.content(Kind.plan) == long.content(Kind.plan))
        let chunks = tokens / 256
        // 20 key channels: 3 lines of codes, 2 * 40 bytes of scales and minima; values: 4 lines, 2 * 64 bytes.
        let chunkBytes = 8 * 2 * 2 * ((3 * 64 + 80 + 63) / 64 * 64 + 4 * 64 + 128)
        let shortPages = try #require(short.content(Kind.pages))
        let longPages = try #require(long.content(Kind.pages))
        #expect(shortPages.count >= chunks * chunkBytes)
        #expect(shortPages.prefix(chunks * chunkBytes) == longPages.prefix(chunks * chunkBytes))
        let entries = 8 * 2 * chunks
        #expect(short.content(Kind.pageTable)?.prefix(entries) == long.content(Kind.pageTable)?.prefix(entries))
        #expect(short.content(Kind.chain)?.prefix(32 * chunks) == long.content(Kind.chain)?.prefix(32 * chunks))
    }

    @Test("a cache that grew after pruning is loaded with the prompt's plan")
    func prunedCacheGrows() async throws {
        let folder = try TemporaryFolder()
        var model = TestCache()
        model.headDimension = 20
        let prompt = try model.makeQuickly()
        model.seed = 2
        model.tokens = 200
        let more = try model.makeQuickly()
        var cache = try await CompressedCache(
            compressing: prompt,
            recipe: Recipe("think(keys=0.4,restore=mean)+kivi(bits=2)")
        )
        let plans = cache.layers.map(\.plan)
        try cache.append(more.layers, tokens: more.tokens)
        try await SnapshotWriter().write(cache, to: folder.file("a.tkv"))
        let reader = try SnapshotReader(path: folder.file("a.tkv"))
        try await reader.verify()
        let loaded = try await reader.cache()
        #expect(CacheContent(loaded).difference(from: CacheContent(cache)) == nil)
        #expect(reader.plans == plans)
        #expect(loaded.tokenCount == 500)
    }

    @Test("a loaded cache of layers of every kind grows as one in memory does", arguments: recipes, [0, 4])
    func mixedCacheGrows(recipe: String, sinks: Int) async throws {
        let folder = try TemporaryFolder()
        var model = MixedCache()
        let prompt = try model.make()
        var inMemory = try await CompressedCache(compressing: prompt, recipe: Recipe(recipe), sinks: sinks)
        try await SnapshotWriter().write(inMemory, to: folder.file("a.tkv"))
        var grown = try await SnapshotReader(path: folder.file("a.tkv")).cache()
        for count in [1, 30, 100] {
            let rows = model.more(of: prompt, count: count)
            let tokens = (0..<Int32(count)).map { $0 }
            try inMemory.append(rows, tokens: tokens)
            try grown.append(rows, tokens: tokens)
        }
        #expect(CacheContent(grown).difference(from: CacheContent(inMemory)) == nil)
        #expect(grown.tokenCount == 471)

        try await SnapshotWriter().write(grown, to: folder.file("b.tkv"))
        let reader = try SnapshotReader(path: folder.file("b.tkv"))
        try await reader.verify()
        #expect(CacheContent(try await reader.cache()).difference(from: CacheContent(grown)) == nil)
    }
}
