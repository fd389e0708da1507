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
        try check(tc_cache_restore(cache.pointer, 1, 17, 273, &keyArgument, &valueArgument, nil))
        #expect(keys.denseBytes == rows.keys.bytes.array)
        #expect(values.denseBytes == rows.values.bytes.array)
    }

    @Test("attention is Swift's, with window, cap, scale and new tokens", arguments: [1, 2], Layout.allCases)
    func sameAttention(threads: Int, layout: Layout) async throws {
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
        let engineQueries = EngineTensor(queries, layout: .tokensFirst)
        let engineLayer = EngineLayer(newer, layout: layout)
        var (queryArgument, newerArgument) = (engineQueries.argument, engineLayer.argument)
        var output = [Float](repeating: 0, count: count)
        try withUnsafePointer(to: &newerArgument) { newerArgument in
            var options = tc_attention_options()
            options.size = MemoryLayout<tc_attention_options>.size
            (options.scale, options.soft_cap, options.sliding_window) = (0.2, 30, 250)
            options.newer = newerArgument
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
        var info = tc_snapshot_info()
        info.size = MemoryLayout<tc_snapshot_info>.size
        try check(tc_snapshot_get_info(snapshot.pointer, &info))
        #expect(info.tokens == 600 && info.layers == 2 && info.type == TC_FLOAT16)
        var shape = tc_layer_shape()
        try check(tc_snapshot_get_layer(snapshot.pointer, 1, &shape))
        #expect(
            shape.query_heads == 4 && shape.kv_heads == 2 && shape.key_dimension == 32 && shape.value_dimension == 32
        )
        expect(tc_snapshot_get_layer(snapshot.pointer, 2, &shape), is: TC_INVALID_ARGUMENT, says: "layer is 2")
        #expect(String(cString: try #require(tc_snapshot_recipe(snapshot.pointer))) == "kivi(bits=2)")
        let names = try (0..<tc_snapshot_metadata_count(snapshot.pointer)).map { index in
            var entry = tc_metadata()
            try check(tc_snapshot_get_metadata(snapshot.pointer, index, &entry))
            let (key, value) = (String(cString: entry.key), String(cString: entry.value))
            #expect(source.metadata[key] == value)
            return key
        }
        #expect(names == source.metadata.keys.sorted())
        var entry = tc_metadata()
        expect(
            tc_snapshot_get_metadata(snapshot.pointer, names.count, &entry),
            is: TC_INVALID_ARGUMENT,
            says: "index is \(names.count)"
        )
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
        var chain = [UInt8](repeating: 0, count: 64)
        try check(tc_snapshot_get_digests(snapshot.pointer, &chain, 2))
        #expect(digests.count == 2 && chain == Array(digests.joined()))
        expect(tc_snapshot_get_digests(snapshot.pointer, &chain, 3), is: TC_INVALID_ARGUMENT, says: "digest_count is 3")
        expect(tc_snapshot_get_digests(snapshot.pointer, nil, 2), is: TC_INVALID_ARGUMENT, says: "digests is NULL")
        var computed = [UInt8](repeating: 0, count: 64)
        let shapes = source.shapeArguments
        try EngineText.withMetadata(source.metadata) { metadata in
            try check(
                tc_prefix_digests(shapes, 2, TC_FLOAT16, metadata, metadata.count, tokens, 600, &computed, 2)
            )
        }
        #expect(computed == chain)

        var expected = try await SnapshotReader(path: folder.file("a.tkv")).cache()
        let whole = try Owned(free: tc_cache_free) { tc_snapshot_load(snapshot.pointer, -1, nil, $0) }
        try await expectSameFile(whole, expected)
        try expected.truncate(to: 256)
        let prefix = try Owned(free: tc_cache_free) { tc_snapshot_load(snapshot.pointer, 256, nil, $0) }
        try await expectSameFile(prefix, expected)
    }

    @Test("a snapshot of another model is told")
    func otherModel() async throws {
        let source = try TestCache.small()
        let folder = try TemporaryFolder()
        let cache = try Owned.cache(source, recipe: "kivi(bits=2)")
        try check(tc_cache_save(cache.pointer, folder.file("a.tkv"), nil, nil))
        let snapshot = try Owned.snapshot(folder.file("a.tkv"))
        func model(
            type: tc_type = TC_FLOAT16,
            metadata: [String: String]? = nil,
            _ change: (inout [tc_layer_shape]) -> Void = { _ in }
        ) -> tc_status {
            var shapes = source.shapeArguments
            change(&shapes)
            return EngineText.withMetadata(metadata ?? source.metadata) { metadata in
                tc_snapshot_check_model(snapshot.pointer, shapes, shapes.count, type, metadata, metadata.count)
            }
        }
        try check(model())
        try check(model(metadata: [:]))
        try check(model { $0[0].query_heads = 0 })
        expect(
            model(metadata: ["model.id": "another"]),
            is: TC_OTHER_MODEL,
            says: "its model.id is test, and not another"
        )
        expect(model(type: TC_BFLOAT16), is: TC_OTHER_MODEL, says: "its type is F16, and not BF16")
        expect(
            model { $0[1].key_dimension = 64 },
            is: TC_OTHER_MODEL,
            says: "key dimension of layer 1 is 32, and not 64"
        )
        expect(model { $0.removeLast() }, is: TC_OTHER_MODEL, says: "its layers is 2, and not 1")
        expect(model { $0.removeAll() }, is: TC_INVALID_ARGUMENT, says: "layer_count is 0")
    }

    @Test("a snapshot without token ids has no digests")
    func noDigests() async throws {
        let source = try TestCache.small()
        let folder = try TemporaryFolder()
        let bare = try KVCache(layers: source.layers)
        try await SnapshotWriter().write(
            CompressedCache(compressing: bare, recipe: Recipe("exact")),
            to: folder.file("a.tkv")
        )
        let snapshot = try Owned.snapshot(folder.file("a.tkv"))
        var digests = [UInt8](repeating: 0, count: 32)
        expect(tc_snapshot_get_digests(snapshot.pointer, &digests, 1), is: TC_NOT_FOUND, says: "not known")
        var ids = [Int32](repeating: 0, count: 300)
        expect(tc_snapshot_get_token_ids(snapshot.pointer, &ids, 300), is: TC_NOT_FOUND, says: "not known")
    }

    @Test("errors are those that Swift measures", arguments: [0, 40])
    func sameErrors(slidingWindow: Int) async throws {
        let source = try TestCache.small()
        let expected = try await CompressedCache(compressing: source, recipe: Recipe("kivi(bits=2)"))
        let cache = try Owned.cache(source, recipe: "kivi(bits=2)")
        var measurement = QualityMeasurement()
        try await measurement.add(
            source.layers[1],
            compressed: expected.layers[1],
            slidingWindow: slidingWindow == 0 ? nil : slidingWindow
        )
        let wanted = measurement.quality.total
        let memory = EngineLayer(source.layers[1], layout: .transposed)
        var original = memory.argument
        var errors = tc_errors()
        errors.size = MemoryLayout<tc_errors>.size
        try check(tc_cache_measure_errors(cache.pointer, 1, &original, slidingWindow, nil, &errors))
        #expect(errors.keys == Double(wanted.keys) && errors.values == Double(wanted.values))
        #expect(errors.scores == wanted.scores.map(Double.init))
        #expect(errors.attention == wanted.attention.map(Double.init))
        #expect(errors.keys > 0.01)
        // A short window is all in full precision.
        #expect(errors.attention < 1e-3 || slidingWindow == 0)

        original.query_count = 0
        try check(tc_cache_measure_errors(cache.pointer, 1, &original, 0, nil, &errors))
        #expect(errors.keys == Double(wanted.keys) && errors.scores.isNaN && errors.attention.isNaN)
        original.tokens = 0
        // As many queries as tokens at the most, of which a cut leaves fewer.
        original.query_count = 32
        let cut = try Owned(free: tc_cache_free) { tc_cache_fork(cache.pointer, $0) }
        try check(tc_cache_truncate(cut.pointer, 10))
        expect(
            tc_cache_measure_errors(cut.pointer, 1, &original, slidingWindow, nil, &errors),
            is: TC_INVALID_ARGUMENT,
            says: "original.query_count is 32, and the cache has 10 tokens"
        )
        original.tokens = 299
        expect(
            tc_cache_measure_errors(cache.pointer, 1, &original, 0, nil, &errors),
            is: TC_INVALID_ARGUMENT,
            says: "299"
        )
        withExtendedLifetime(memory) {}
    }

    @Test("a recipe says what it does, what it needs, and how large caches get")
    func advice() throws {
        let recipe = try Owned.recipe("snapkv(keep=0.5)+balanced")
        let advice = String(cString: try #require(tc_recipe_advice(recipe.pointer)))
        let lines = advice.split(separator: "\n")
        #expect(lines[0].hasPrefix("balanced, think(bits=2.5,values=2.25): 4."))
        #expect(lines[1].hasPrefix("snapkv: SnapKV"))
        #expect(advice.contains("the prompt's last 32 queries"))
        #expect(advice.contains("not cut to a prefix"))
        #expect(lines.last == "Keeps the last 128 tokens and the first 4 in full precision.")

        func info(_ text: String) throws -> tc_recipe_info {
            var info = tc_recipe_info()
            info.size = MemoryLayout<tc_recipe_info>.size
            let recipe = try Owned.recipe(text)
            try withExtendedLifetime(recipe) { try check(tc_recipe_get_info(recipe.pointer, &info)) }
            return info
        }
        let facts = try info("snapkv(keep=0.5,observe=16)+kivi(bits=4,residual=64,sinks=4)")
        #expect(facts.observation_window == 16 && facts.residual_window == 64 && facts.sinks == 4)
        #expect(facts.selects_tokens == 1 && facts.needs_all_layers == 0 && facts.type.rawValue == 0)
        #expect(try info("h2o(keep=0.5)").observation_window == -1)
        #expect(try info("kivi(bits=4)").observation_window == 0)
        #expect(try info("auto(error=2%)").needs_all_layers == 1)
        #expect(try info("bf16").type == TC_BFLOAT16)
        // What no machine has memory for is estimated from less.
        let longest = try Owned.recipe("kivi(bits=4)")
        var largest = tc_layer_shape(query_heads: 0, kv_heads: 1024, key_dimension: 32, value_dimension: 32)
        var most = 0.0
        try check(tc_recipe_estimate_bits(longest.pointer, &largest, Int(Int32.max), TC_FLOAT16, nil, &most))
        #expect(abs(most - 5) < 0.01, "\(most)")

        for (text, tokens) in [
            ("exact", 1000), ("kivi(bits=2)", 1000), ("think(keys=0.4)+kivi(bits=2)", 1000), ("balanced", 1000),
            ("kivi(bits=2)", 20_037),
        ] {
            var maker = TestCache()
            (maker.headDimension, maker.tokens) = (32, tokens)
            let source = try maker.makeQuickly()
            let recipe = try Owned.recipe(text)
            var shape = source.shapeArguments[0]
            var bits = 0.0
            try check(tc_recipe_estimate_bits(recipe.pointer, &shape, tokens, TC_FLOAT16, nil, &bits))
            let cache = try Owned.cache(source, recipe: text)
            var info = tc_cache_info()
            info.size = MemoryLayout<tc_cache_info>.size
            try check(tc_cache_get_info(cache.pointer, &info))
            #expect(abs(bits / info.bits_per_value - 1) < 0.01, "\(text): \(bits), \(info.bits_per_value)")
            expect(
                tc_recipe_estimate_bits(recipe.pointer, &shape, 0, TC_FLOAT16, nil, &bits),
                is: TC_INVALID_ARGUMENT,
                says: "tokens is 0"
            )
            shape.query_heads = 3
            expect(
                tc_recipe_estimate_bits(recipe.pointer, &shape, 9, TC_FLOAT16, nil, &bits),
                is: TC_INVALID_ARGUMENT,
                says: "query heads"
            )
        }
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
        // One of a version that has a member more.
        var words = [UInt64](repeating: .max, count: MemoryLayout<tc_cache_info>.size / 8 + 1)
        words[0] = UInt64(words.count * 8)
        try words.withUnsafeMutableBytes {
            try check(tc_cache_get_info(cache.pointer, $0.baseAddress?.assumingMemoryBound(to: tc_cache_info.self)))
        }
        #expect(words[1] == 300 && words.last == 0)
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

    @Test("rows that no sliding window reaches are dropped as in Swift")
    func dropRows() async throws {
        let source = try TestCache.small(tokens: 900)
        var expected = try await CompressedCache(compressing: source, recipe: Recipe("kivi(bits=2)"))
        let cache = try Owned.cache(source, recipe: "kivi(bits=2)")
        try check(tc_cache_drop_rows(cache.pointer, 0, -1))
        try await expectSameFile(cache, expected)
        expected.dropRows(ofLayer: 1, keeping: 300)
        try check(tc_cache_drop_rows(cache.pointer, 1, 300))
        try await expectSameFile(cache, expected)
        var (shape, rows) = (tc_layer_shape(), 0)
        try check(tc_cache_get_layer(cache.pointer, 1, &shape, &rows))
        #expect(rows == 388)
        expect(tc_cache_drop_rows(cache.pointer, 2, 0), is: TC_INVALID_ARGUMENT, says: "layer is 2")
        expect(tc_cache_truncate(cache.pointer, 890), is: TC_WHOLE_ONLY, says: "layer 1")
    }

    @Test("a cache that one thread changes is seen before or after a change by others")
    func changes() async throws {
        let source = try TestCache.small()
        let shared = try Owned.cache(source, recipe: "kivi(bits=2)")
        let memory = source.layers(tokens: 0..<10).map { EngineLayer($0) }
        let queries = EngineTensor(try #require(source.layers[0].queries)[tokens: 0..<1])
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                for _ in 0..<40 {
                    try check(tc_cache_append(shared.pointer, memory.map(\.argument), 2, 10, nil))
                    try check(tc_cache_truncate(shared.pointer, 300))
                }
            }
            for _ in 0..<3 {
                group.addTask {
                    var outputs: [Int: [Float]] = [:]
                    for _ in 0..<40 {
                        let fork = try Owned(free: tc_cache_free) { tc_cache_fork(shared.pointer, $0) }
                        var info = tc_cache_info()
                        info.size = MemoryLayout<tc_cache_info>.size
                        try check(tc_cache_get_info(fork.pointer, &info))
                        #expect(info.tokens == 300 || info.tokens == 310)
                        var output = [Float](repeating: 0, count: 128)
                        var argument = queries.argument
                        try check(tc_cache_attend(fork.pointer, 0, &argument, 4, 1, nil, nil, &output, 128))
                        // The same tokens give the same, whenever they are seen.
                        #expect(outputs[info.tokens, default: output] == output)
                        outputs[info.tokens] = output
                        try check(tc_cache_attend(shared.pointer, 1, &argument, 4, 1, nil, nil, &output, 128))
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    @Test("a layer of keys without values goes the whole way, but can't be attended to", arguments: Layout.allCases)
    func noValues(layout: Layout) async throws {
        let keys = try TestCache.small().layers[0].keys
        let source = try KVCache(layers: [
            KVCacheLayer(
                keys: keys,
                values: KVTensor(bytes: SharedBytes([]), elementType: .float16, heads: 2, tokens: 300, headDimension: 0)
            )
        ])
        let cache = try Owned.cache(source, recipe: "kivi(bits=2)", layout: layout)
        try await expectSameFile(cache, try CompressedCache(compressing: source, recipe: Recipe("kivi(bits=2)")))
        let restored = EngineTensor(type: .float16, heads: 2, tokens: 300, channels: 32, layout: layout)
        var (target, nothing) = (restored.mutableArgument, restored.mutableArgument)
        (nothing.head_stride, nothing.token_stride, nothing.channel_stride) = (0, 64, 1)
        try check(tc_cache_restore(cache.pointer, 0, 0, 300, &target, &nothing, nil))
        #expect(restored.denseBytes.contains { $0 != 0xAB })
        let newer = EngineLayer(source.layers[0])
        var layer = newer.argument
        layer.tokens = 5
        layer.values.token_stride = 64
        var query = restored.argument
        var output: [Float] = [0]
        withUnsafePointer(to: layer) { layer in
            var options = tc_attention_options()
            (options.size, options.newer) = (MemoryLayout<tc_attention_options>.size, layer)
            expect(
                tc_cache_attend(cache.pointer, 0, &query, 2, 1, &options, nil, &output, 0),
                is: TC_INVALID_ARGUMENT,
                says: "no values"
            )
        }
        withExtendedLifetime((newer, restored)) {}
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
