import TestSupport
import Testing
import ThinkCompress

/// Wrong use of the library ends in a message, not in memory that was never there.
@Suite struct PreconditionTests {
    private static func shape(blockLength: Int = 32, residualWindow: Int = 0) -> BlockShape {
        BlockShape(elementType: .float16, blockLength: blockLength, residualWindow: residualWindow)
    }

    private static func plan(keyDimension: Int = 4, sinks: Int = 0, heads: Int = 1) throws -> LayerPlan {
        let geometry = try LayerGeometry(kvHeads: 1, keyDimension: keyDimension, valueDimension: 4)
        let head = HeadPlan(fullPrecision: geometry)
        return LayerPlan(geometry: geometry, sinks: sinks, heads: [HeadPlan](repeating: head, count: heads))
    }

    @Test("a shape is within the format's limits")
    func limits() async {
        let length = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            _ = PreconditionTests.shape(blockLength: 16)
        }
        #expect(ProgramEnd.says("a block has 32, 64 or 128 tokens", length?.standardErrorContent))
        let window = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            _ = PreconditionTests.shape(residualWindow: 65537)
        }
        #expect(ProgramEnd.says("the window is out of range", window?.standardErrorContent))
    }

    @Test("heads are within the format's limits")
    func headLimits() {
        #expect(throws: KVCacheError(.invalidGeometry, "the key dimension is 1025, must be 1...1024")) {
            try LayerGeometry(kvHeads: 1, keyDimension: 1025, valueDimension: 4)
        }
        #expect(throws: KVCacheError(.invalidGeometry, "the number of KV heads is 0, must be 1...1024")) {
            try LayerGeometry(kvHeads: 0, keyDimension: 4, valueDimension: 4)
        }
    }

    @Test("a layer's plan has a plan for each head, and not too many sinks")
    func layerPlans() async {
        let heads = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            _ = try PreconditionTests.plan(heads: 2)
        }
        #expect(ProgramEnd.says("every KV head needs a plan", heads?.standardErrorContent))
        let sinks = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            _ = try PreconditionTests.plan(sinks: 65)
        }
        #expect(ProgramEnd.says("a layer has at most 64 sinks", sinks?.standardErrorContent))
    }

    @Test("only a layer of the last tokens skips some, and it has no sinks")
    func heldTokens() async {
        let skipping = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            let plan = try PreconditionTests.plan()
            _ = CompressedLayer(shape: PreconditionTests.shape(), index: 0, plan: plan, skippedTokens: 1)
        }
        #expect(ProgramEnd.says("only a layer of the last tokens skips some", skipping?.standardErrorContent))
        let sinks = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            let plan = try PreconditionTests.plan(sinks: 1)
            _ = CompressedLayer(shape: PreconditionTests.shape(), index: 0, plan: plan, held: .last)
        }
        #expect(ProgramEnd.says("only the cache's first tokens can be sinks", sinks?.standardErrorContent))
        let fewTokens = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            let plan = try PreconditionTests.plan(sinks: 4)
            _ = CompressedLayer(shape: PreconditionTests.shape(), index: 0, plan: plan, held: .listed([[0, 1, 2]]))
        }
        #expect(ProgramEnd.says("only the cache's first tokens can be sinks", fewTokens?.standardErrorContent))
    }

    @Test("heads have plans that were made for their layer")
    func plansOfOthers() async {
        let keys = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            let geometry = try LayerGeometry(kvHeads: 1, keyDimension: 4, valueDimension: 4)
            _ = LayerPlan(geometry: geometry, heads: try PreconditionTests.plan(keyDimension: 5).heads)
        }
        #expect(ProgramEnd.says("a plan of another layer", keys?.standardErrorContent))
        let values = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            let geometry = try LayerGeometry(kvHeads: 1, keyDimension: 4, valueDimension: 4)
            let run = HeadPlan.KeyRun(.fullPrecision, channels: [0, 1, 2, 3])
            let plan = try HeadPlan(keyRuns: [run], values: Coding(width: 2), geometry: geometry)
            let other = try LayerGeometry(kvHeads: 1, keyDimension: 4, valueDimension: 0)
            _ = LayerPlan(geometry: other, heads: [plan])
        }
        #expect(ProgramEnd.says("a plan of another layer", values?.standardErrorContent))
    }

    @Test("a window that may be long takes no more than its tokens need")
    func longWindow() async throws {
        var model = TestCache()
        (model.layers, model.tokens, model.window) = (1, 3, 0)
        let cache = try model.make()
        var compressed = try await CompressedCache(
            compressing: cache,
            recipe: Recipe("kivi(bits=2,residual=65536)")
        )
        let window = try #require(compressed.layers[0].residualWindow)
        // Keys and values lie in one piece of memory, the keys first.
        #expect(window.keys.bytes.count == 2 * cache.layers[0].keys.byteCount)
        for _ in 0..<5 { try compressed.append([cache.layers[0]], tokens: [1, 2, 3]) }
        #expect(compressed.tokenCount == 18)
        let grown = try #require(compressed.layers[0].residualWindow)
        #expect(grown.keys.bytes.count <= 2 * (2 * 18 * 2 * 64 * 2))
        #expect(grown.keys[tokens: 15..<18].numbers == cache.layers[0].keys.numbers)
    }

    @Test("positions that are left out are the tokens' own")
    func positions() async throws {
        var model = TestCache()
        (model.layers, model.tokens, model.window) = (1, 2, 0)
        let layer = try model.make().layers[0]
        let recipe = try Recipe("f16")
        let shifted = try KVCache(layers: [layer], positions: [7, 8])
        var compressed = try await CompressedCache(compressing: shifted, recipe: recipe)
        try compressed.append([layer])
        #expect(compressed.positions == [7, 8, 2, 3])
        var plain = try await CompressedCache(compressing: KVCache(layers: [layer]), recipe: recipe)
        try plain.append([layer], positions: [5, 6])
        #expect(plain.positions == [0, 1, 5, 6])
    }
}
