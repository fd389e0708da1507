import TestSupport
import Testing
import ThinkCompress

/// Selected tokens under the stages that follow.
@Suite struct CompositionTests {
    static let selections = ["streaming(recent=96)", "snapkv(keep=0.4)", "h2o(keep=0.4)", "keydiff(tokens=120)"]
    static let laterStages = [
        "think(keys=0.4,recent=0)", "think(keys=0.4,values=0.2,recent=0)+kivi(bits=2,residual=32)",
        "think(keys=0.5,restore=mean,recent=64)", "kivi(bits=2,residual=32,sinks=4)",
        "think(keys=0.4)+kivi(keys=4,values=2,residual=64)", "think(bits=2.5,values=2.25,recent=32)",
        "auto(bits=3)", "exact",
    ]

    private static func cache() throws -> KVCache {
        var maker = TestCache()
        (maker.layers, maker.window) = (2, 32)
        let cache = try maker.makeQuickly()
        var generator = SplitMix64(seed: 6)
        let layers = cache.layers.map { layer in
            KVCacheLayer(
                keys: layer.keys,
                values: layer.values,
                queries: layer.queries,
                accumulatedAttention: (0..<layer.keys.heads).map { _ in
                    (0..<layer.keys.tokens).map { _ in Double.random(in: 0..<1, using: &generator) }
                }
            )
        }
        return try KVCache(layers: layers, tokens: cache.tokens, metadata: cache.metadata)
    }

    /// The cache of what a selection keeps, in full precision, the first `sinks` tokens among it.
    private static func kept(_ cache: KVCache, by selection: String, sinks: Int) async throws -> KVCache {
        // All of it lies in the window.
        let recipe = try Recipe("\(selection)+kivi(bits=8,residual=320,sinks=\(sinks))")
        let selected = try await CompressedCache(compressing: cache, recipe: recipe)
        let layers = try zip(cache.layers, selected.layers).map { source, layer in
            let rows = try layer.decompress(rows: 0..<layer.rowCount, as: cache.elementType)
            return KVCacheLayer(keys: rows.keys, values: rows.values, held: layer.held, queries: source.queries)
        }
        return try KVCache(
            layers: layers,
            tokenCount: cache.tokenCount,
            tokens: cache.tokens,
            metadata: cache.metadata
        )
    }

    @Test("later stages see what stays and nothing else", arguments: selections, laterStages)
    func laterStagesSeeWhatStays(selection: String, later: String) async throws {
        let cache = try Self.cache()
        let recipe = try Recipe("\(selection)+\(later)")
        let atOnce = try await CompressedCache(compressing: cache, recipe: recipe)
        let afterwards = try await CompressedCache(
            compressing: Self.kept(cache, by: selection, sinks: recipe.sinks),
            recipe: Recipe(later)
        )
        let contents = [atOnce, afterwards].map { CacheContent($0.with(recipe: nil)) }
        #expect(contents[0].difference(from: contents[1]) == nil)
        #expect(atOnce.layers.map(\.held) == afterwards.layers.map(\.held))
        #expect(atOnce.profile == afterwards.profile)
        #expect(atOnce.recipe?.stages.first?.text == selection)
        #expect(atOnce.tokenCount == 300)
        for layer in atOnce.layers {
            #expect(layer.rowCount < 150)
            // Every head holds the newest tokens, and they are the window.
            for head in 0..<2 {
                let window = layer.extent.windowRowCount
                let newest = (layer.rowCount - min(window, 24)..<layer.rowCount).map {
                    layer.held.token(atPlace: $0, head: head)
                }
                #expect(newest == Array(300 - newest.count..<300))
            }
        }
    }

    @Test("a selection alone keeps every bit of what stays", arguments: ElementType.allCases)
    func fullPrecision(type: ElementType) async throws {
        var maker = TestCache()
        maker.elementType = type
        let cache = try maker.makeQuickly()
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("keydiff(keep=0.5)"))
        for (source, layer) in zip(cache.layers, compressed.layers) {
            let restored = try layer.decompress(rows: 0..<layer.rowCount, as: type)
            for head in 0..<2 {
                for row in 0..<layer.rowCount {
                    let token = layer.held.token(atPlace: row, head: head)
                    for part in CachePart.allCases {
                        let place = restored[part].headStride * head + restored[part].tokenStride * row
                        let original = source[part].headStride * head + source[part].tokenStride * token
                        let count = 64 * type.byteCount
                        let isSame = restored[part].bytes[place..<place + count]
                            .hasSameBytes(as: source[part].bytes[original..<original + count])
                        #expect(isSame)
                    }
                }
            }
        }
    }

    @Test(
        "layers that come one by one give the same bytes",
        arguments: ["auto(bits=3)", "auto(ratio=1.3)", "kivi(bits=2)"]
    )
    func layerByLayer(later: String) async throws {
        let cache = try Self.cache()
        let recipe = try Recipe("snapkv(keep=0.9)+\(later)")
        var compressor = CacheCompressor(
            geometry: cache.geometry,
            tokenCount: cache.tokenCount,
            elementType: cache.elementType,
            recipe: recipe
        )
        for layer in cache.layers { try await compressor.add(layer) }
        let oneByOne = compressor.finish(tokens: cache.tokens, metadata: cache.metadata)
        let atOnce = try await CompressedCache(compressing: cache, recipe: recipe)
        #expect(CacheContent(oneByOne).difference(from: CacheContent(atOnce)) == nil)
        #expect(oneByOne.recipe == atOnce.recipe)
    }

    @Test("what follows is appended by the plan, and attention sees it with what stayed", arguments: selections)
    func appending(selection: String) async throws {
        let cache = try Self.cache()
        let recipe = try Recipe("\(selection)+think(keys=0.4)+kivi(bits=4,residual=32)")
        var compressed = try await CompressedCache(compressing: cache, recipe: recipe)
        var maker = TestCache()
        (maker.tokens, maker.seed) = (90, 5)
        let new = try maker.makeQuickly()
        let before = compressed.layers.map(\.held)
        try compressed.append(new.layers(tokens: 0..<90))
        let workers = WorkerThreads(threadCount: 2)
        for (index, layer) in compressed.layers.enumerated() {
            guard case .listed(let lists) = before[index] else {
                Issue.record("the tokens are not listed")
                return
            }
            #expect(layer.held == .listed(lists.map { $0 + (300..<390) }))
            let rows = try layer.decompress(rows: 0..<layer.rowCount, as: .float32)
            let queries = try #require(cache.layers[index].queries)[tokens: 0..<3]
            var output = [Float](repeating: .nan, count: 3 * 4 * 64)
            var span = output.mutableSpan
            try Attention(precision: .precise).attend(queries, over: layer, using: workers, into: &span)
            let whole = KVCacheLayer(keys: rows.keys, values: rows.values, held: layer.held)
            let reference = ReferenceAttention(queries, over: [whole], tokenCount: 390)
            #expect(reference.relativeError(of: output) < 5e-4)
        }
        let error = #expect(throws: CodecError.self) { try compressed.truncate(to: 100) }
        #expect(error?.code == .partialCache)
        #expect(compressed.wholeOnlyReason != nil)
    }

    @Test("layers without keys stay as they are, and those of few tokens whole")
    func otherLayers() async throws {
        let sample = SelectionSample()
        let state = [LayerState(name: "sums", bytes: SharedBytes([1, 2, 3]))]
        let layers = [
            try sample.layer(), KVCacheLayer(elementType: .float32, state: state),
            try SelectionSample(held: .last, rows: 40).layer(),
        ]
        let cache = try KVCache(layers: layers, tokenCount: 150)
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("keydiff(tokens=50)"))
        #expect(compressed.layers.map(\.rowCount) == [50, 0, 40])
        #expect(compressed.layers[1].held == .all)
        #expect(compressed.layers[2].held == .last)
        #expect(compressed.layers[1].state == state)
    }

    /// A stage that keeps what it is told.
    private struct FixedStage: TokenSelectionStage {
        let count: Int
        let rows: [[Int]]
        var parameters: [StageParameter] { [] }
        var codec: CodecRegistration {
            CodecRegistration(
                number: 1002,
                name: "fixed",
                role: .tokenSelection,
                parameterNames: [],
                example: "fixed",
                help: "keeps what it is told"
            ) { (_) throws(RecipeError) in self }
        }

        func keptCount(ofRows rows: Int, sinks: Int) -> Int { count }
        func keptRows(of statistics: LayerStatistics, head: Int, sinks: Int) -> [Int] { rows[head] }
    }

    @Test(
        "refuses rows that a layer can't keep",
        arguments: [
            (2, [[0, 1], [2]]), (2, [[1, 0], [2, 3]]), (2, [[0, 0], [2, 3]]), (2, [[0, 150], [2, 3]]),
            (2, [[-1, 3], [2, 3]]), (0, [[], []]), (151, [[0], [0]]),
        ]
    )
    func impossibleRows(count: Int, rows: [[Int]]) async throws {
        let recipe = try Recipe(FixedStage(count: count, rows: rows))
        let error = await #expect(throws: CodecError.self) {
            try await CompressedCache(compressing: SelectionSample().cache(), recipe: recipe)
        }
        #expect(error?.code == .unsupportedPlan)
        #expect(error?.layer == 0)
        #expect(error?.message == "fixed must keep the same number of the layer's 150 rows in each KV head, ascending")
    }

    @Test(
        "what later stages keep as sinks stays, in place of others between it and the newest",
        arguments: [
            ("snapkv(keep=0.4)", 60), ("snapkv(tokens=33)", 36), ("h2o(keep=0.4)", 60), ("h2o(keep=0.03)", 5),
            ("h2o(keep=0.03,recent=9)", 13), ("keydiff(tokens=60)", 60), ("keydiff(keep=0.01,recent=0)", 4),
            ("streaming(sinks=0,recent=50)", 54), ("streaming(sinks=7,recent=50)", 57),
        ],
        ["kivi(bits=4,sinks=4)", "think(bits=3,recent=32)", "auto(bits=3)"]
    )
    func sinksStay(_ selected: (recipe: String, count: Int), later: String) async throws {
        let (selection, count) = selected
        let sample = SelectionSample(dimension: 32)
        let alone = try await sample.compressed(selection)
        let layer = try await sample.compressed("\(selection)+\(later)")
        #expect(layer.plan.sinks == 4)
        #expect(layer.rowCount == count)
        guard case .listed(let lists) = layer.held, case .listed(let others) = alone.held else {
            Issue.record("tokens must have been dropped")
            return
        }
        for (list, other) in zip(lists, others) {
            #expect(Array(list.prefix(4)) == [0, 1, 2, 3])
            // Nothing else is new.
            #expect(Set(list.dropFirst(4)).isSubset(of: other))
        }
        // Nothing changes where no stage keeps sinks, or a layer begins with others.
        #expect(try await sample.compressed("\(selection)+kivi(bits=4)").held == alone.held)
        let last = SelectionSample(held: .last, dimension: 32, tokenCount: 300)
        let lastLayer = try await last.compressed("\(selection)+\(later)")
        #expect(lastLayer.plan.sinks == 0)
        #expect(try await last.compressed(selection).held == lastLayer.held)
    }
}
