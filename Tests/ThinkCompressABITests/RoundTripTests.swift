import CThinkCompress
import TestSupport
import Testing
import ThinkCompress

/// The C library gives what Swift's interface gives, bit for bit.
@Suite struct RoundTripTests {
    static let recipes = [
        "exact", "kivi(bits=2)", "think(keys=0.4)+kivi(bits=2)", "balanced", "auto(bits=3)",
        "snapkv(keep=0.5)+kivi(bits=4)",
    ]

    /// A file that the C library writes, beside one that Swift writes of another cache.
    private func expectSameFile(_ cache: Owned, _ expected: CompressedCache) async throws {
        let folder = try TemporaryFolder()
        try check(tc_cache_save(cache.pointer, folder.file("c.tkv"), nil, nil))
        try await SnapshotWriter().write(expected, to: folder.file("swift.tkv"))
        #expect(try fileBytes(folder.file("c.tkv")) == fileBytes(folder.file("swift.tkv")))
    }

    @Test("a compressed cache has the bytes that Swift gives it", arguments: recipes, Layout.allCases)
    func sameCache(recipe: String, layout: Layout) async throws {
        let source = try TestCache.small()
        let cache = try Owned.cache(source, recipe: recipe, layout: layout)
        try await expectSameFile(cache, try CompressedCache(compressing: source, recipe: Recipe(recipe)))
    }

    @Test("appending, forking and truncating give the bytes that Swift gives", arguments: Layout.allCases)
    func sameGrowth(layout: Layout) async throws {
        let whole = try TestCache.small(tokens: 400)
        var expected = try await CompressedCache(compressing: whole.prefix(300), recipe: Recipe("kivi(bits=2)"))
        let cache = try Owned.cache(whole.prefix(300), recipe: "kivi(bits=2)", layout: layout)
        let fork = try Owned(free: tc_cache_free) { tc_cache_fork(cache.pointer, $0) }
        try await expectSameFile(fork, expected)
        let former = expected

        let tokens = try #require(whole.tokens)
        try expected.append(whole.layers(tokens: 300..<400), tokens: Array(tokens[300...]))
        let layers = whole.layers(tokens: 300..<400).map { EngineLayer($0, layout: layout) }
        try check(tc_cache_append(cache.pointer, layers.map(\.argument), layers.count, 100, Array(tokens[300...])))
        try await expectSameFile(cache, expected)
        try await expectSameFile(fork, former)

        try expected.truncate(to: 290)
        try check(tc_cache_truncate(cache.pointer, 290))
        try await expectSameFile(cache, expected)
        withExtendedLifetime(layers) {}
    }

    @Test("rows are restored as in Swift, to any layout", arguments: ElementType.allCases, Layout.allCases)
    func sameRows(type: ElementType, layout: Layout) async throws {
        let source = try TestCache.small()
        let expected = try await CompressedCache(compressing: source, recipe: Recipe("kivi(bits=4)"))
        let cache = try Owned.cache(source, recipe: "kivi(bits=4)")
        let rows = try expected.layers[1].decompress(rows: 17..<290, as: type)
        let keys = EngineTensor(type: type, heads: 2, tokens: 273, channels: 32, layout: layout)
        let values = EngineTensor(type: type, heads: 2, tokens: 273, channels: 32, layout: layout)
        var (keyArgument, valueArgument) = (keys.mutableArgument, values.mutableArgument)
        try check(tc_cache_restore(cache.pointer, 1, 17, 273, &keyArgument, &valueArgument))
        #expect(keys.denseBytes == rows.keys.bytes.array)
        #expect(values.denseBytes == rows.values.bytes.array)
    }

    @Test("attention is Swift's, with window, cap, scale and new tokens", arguments: [1, 2])
    func sameAttention(threads: Int) async throws {
        let whole = try TestCache.small(tokens: 310)
        let expected = try await CompressedCache(compressing: whole.prefix(300), recipe: Recipe("balanced"))
        let cache = try Owned.cache(whole.prefix(300), recipe: "balanced")
        let queries = try #require(whole.layers[0].queries)[tokens: 0..<10]
        let newer = whole.layers(tokens: 300..<310)[0]
        let attention = Attention(scale: 0.2, slidingWindow: 250, logitSoftCap: 30)
        let count = 10 * 4 * 32
        var result = [Float](repeating: 0, count: count)
        var span = result.mutableSpan
        try attention.attend(
            queries,
            over: expected.layers[0],
            followedBy: newer,
            using: WorkerThreads(threadCount: 1),
            into: &span
        )
        let workers = try Owned(free: tc_workers_free) { tc_workers_create(threads, $0) }
        let (engineQueries, engineLayer) = (EngineTensor(queries, layout: .tokensFirst), EngineLayer(newer))
        var (queryArgument, newerArgument) = (engineQueries.argument, engineLayer.argument)
        var output = [Float](repeating: 0, count: count)
        try withUnsafePointer(to: &newerArgument) { newerArgument in
            var options = tc_attention_options(
                size: MemoryLayout<tc_attention_options>.size,
                scale: 0.2,
                soft_cap: 30,
                sliding_window: 250,
                newer: newerArgument
            )
            try check(
                tc_cache_attend(cache.pointer, 0, &queryArgument, 4, 10, &options, workers.pointer, &output, count)
            )
        }
        #expect(output == result)
        withExtendedLifetime((engineQueries, engineLayer)) {}
    }

    @Test("a snapshot comes back whole and as a prefix, with tokens, digests and metadata")
    func snapshot() async throws {
        let source = try TestCache.small(tokens: 600)
        let folder = try TemporaryFolder()
        let cache = try Owned.cache(source, recipe: "kivi(bits=2)")
        try check(tc_cache_save(cache.pointer, folder.file("a.tkv"), nil, nil))
        let snapshot = try Owned.snapshot(folder.file("a.tkv"))
        try check(tc_snapshot_verify(snapshot.pointer, nil))
        #expect(tc_snapshot_token_count(snapshot.pointer) == 600)
        #expect(String(cString: try #require(tc_snapshot_metadata(snapshot.pointer, "model.id"))) == "test")
        #expect(tc_snapshot_metadata(snapshot.pointer, "no.such.key") == nil)
        var tokens = [Int32](repeating: 0, count: 600)
        try check(tc_snapshot_get_token_ids(snapshot.pointer, &tokens, 600))
        #expect(tokens == source.tokens)
        let digests = PrefixChain.digests(
            tokens: tokens,
            geometry: source.geometry,
            elementType: source.elementType,
            metadata: source.metadata
        )
        var digest = [UInt8](repeating: 0, count: 32)
        try check(tc_snapshot_get_digest(snapshot.pointer, 1, &digest))
        #expect(digests.count == 2 && digest == digests[1])
        expect(tc_snapshot_get_digest(snapshot.pointer, 2, &digest), is: TC_NOT_FOUND, says: "prefix")

        var expected = try await SnapshotReader(path: folder.file("a.tkv")).cache()
        let whole = try Owned(free: tc_cache_free) { tc_snapshot_load(snapshot.pointer, -1, nil, $0) }
        try await expectSameFile(whole, expected)
        try expected.truncate(to: 256)
        let prefix = try Owned(free: tc_cache_free) { tc_snapshot_load(snapshot.pointer, 256, nil, $0) }
        try await expectSameFile(prefix, expected)
    }

    @Test("what a cache is can be asked")
    func information() async throws {
        let source = try TestCache.small()
        let expected = try await CompressedCache(compressing: source, recipe: Recipe("kivi(bits=2)"))
        let cache = try Owned.cache(source, recipe: "kivi(bits=2)")
        var info = tc_cache_info(
            size: MemoryLayout<tc_cache_info>.size,
            tokens: 0,
            layers: 0,
            type: TC_FLOAT32,
            block_bytes: 0,
            full_precision_bytes: 0,
            bits_per_value: 0
        )
        try check(tc_cache_get_info(cache.pointer, &info))
        #expect(info.tokens == 300 && info.layers == 2 && info.type == TC_FLOAT16)
        #expect(info.block_bytes == expected.blockByteCount)
        #expect(info.full_precision_bytes == expected.fullPrecisionByteCount)
        let bits = Double(expected.blockByteCount + expected.fullPrecisionByteCount) * 8 / (300 * 2 * 2 * 2 * 32)
        #expect(info.bits_per_value == bits)
        // A caller of a version that knew no more than the number of tokens.
        info.size = 16
        info.tokens = 0
        info.layers = 77
        try check(tc_cache_get_info(cache.pointer, &info))
        #expect(info.tokens == 300 && info.layers == 77)
        var (shape, rows) = (tc_layer_shape(), 0)
        try check(tc_cache_get_layer(cache.pointer, 1, &shape, &rows))
        #expect(shape.kv_heads == 2 && shape.key_dimension == 32 && shape.value_dimension == 32 && rows == 300)
        var tokens = [Int32](repeating: 0, count: 300)
        try check(tc_cache_get_token_ids(cache.pointer, &tokens, 300))
        #expect(tokens == source.tokens)
        let recipe = try Owned.recipe("kivi(bits=2,residual=128)")
        #expect(String(cString: tc_recipe_text(recipe.pointer)) == "kivi(bits=2)")
        #expect(String(cString: tc_version()) == TC_VERSION)
        #expect(tc_kernels() != nil)
    }

    @Test("threads use caches of their own, and one that all read")
    func threads() async throws {
        let source = try TestCache.small()
        let shared = try Owned.cache(source, recipe: "kivi(bits=2)")
        let queries = EngineTensor(try #require(source.layers[0].queries))
        let outputs = try await withThrowingTaskGroup(of: [Float].self) { group in
            for _ in 0..<8 {
                group.addTask {
                    let own = try Owned.cache(source, recipe: "kivi(bits=2)", layout: .tokensFirst)
                    var output = [Float](repeating: 0, count: 2 * 32 * 4 * 32)
                    var argument = queries.argument
                    for (cache, half) in [(own, 0), (shared, 1)] {
                        let fork = try Owned(free: tc_cache_free) { tc_cache_fork(cache.pointer, $0) }
                        try check(tc_cache_truncate(fork.pointer, 250))
                        try output.withUnsafeMutableBufferPointer { output in
                            let count = output.count / 2
                            let start = try #require(output.baseAddress) + half * count
                            try check(
                                tc_cache_attend(cache.pointer, 0, &argument, 4, 32, nil, nil, start, count)
                            )
                        }
                    }
                    return output
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(outputs.count == 8)
        for output in outputs {
            #expect(output == outputs[0])
            #expect(output.prefix(output.count / 2).elementsEqual(output.suffix(output.count / 2)))
        }
    }
}
