import TestSupport
import Testing
import ThinkCompress

/// Wrong use of the library ends in a message, not in memory that was never there.
@Suite struct PreconditionTests {
    private static func shape(headDimension: Int = 4, kvHeads: Int = 1, residualWindow: Int = 0) -> BlockShape {
        BlockShape(
            kvHeads: kvHeads,
            headDimension: headDimension,
            elementType: .float16,
            blockLength: 32,
            residualWindow: residualWindow
        )
    }

    @Test("a shape is within the format's limits")
    func limits() async {
        await #expect(processExitsWith: .failure) { _ = PreconditionTests.shape(headDimension: 1025) }
        await #expect(processExitsWith: .failure) { _ = PreconditionTests.shape(kvHeads: 0) }
        await #expect(processExitsWith: .failure) { _ = PreconditionTests.shape(residualWindow: 65537) }
    }

    @Test("a plan keeps the format's rules", arguments: [0, 1, 2, 3, 4, 5, 6])
    func plans(fault: Int) async {
        await #expect(processExitsWith: .failure) { [fault] in
            let plan: HeadPlan =
                switch fault {
                case 0: HeadPlan(keyRuns: [.init(width: 3, channels: [0, 1])], valueWidth: 16, prunedMeans: [])
                case 1: HeadPlan(keyRuns: [.init(width: 2, channels: [0, 1])], valueWidth: 0, prunedMeans: [])
                case 2: HeadPlan(keyRuns: [.init(width: 2, channels: [1, 0])], valueWidth: 2, prunedMeans: [])
                case 3: HeadPlan(keyRuns: [.init(width: 2, channels: [4])], valueWidth: 2, prunedMeans: [])
                case 4: HeadPlan(keyRuns: [], valueWidth: 2, prunedMeans: [])
                case 5: HeadPlan(keyRuns: [.init(width: 2, channels: [0])], valueWidth: 2, prunedMeans: [1])
                default:
                    HeadPlan(
                        keyRuns: [.init(width: 2, channels: [0]), .init(width: 4, channels: [0])],
                        valueWidth: 2,
                        prunedMeans: []
                    )
                }
            _ = CompressedLayer(shape: PreconditionTests.shape(), index: 0, plans: [plan])
        }
    }

    @Test("a block's size is asked of plans that keep the rules", arguments: [0, -1, 3, 32])
    func blockSizes(width: Int) async {
        await #expect(processExitsWith: .failure) { [width] in
            let plan = HeadPlan(keyRuns: [.init(width: width, channels: [0])], valueWidth: 2, prunedMeans: [])
            _ = plan.blockByteCount(shape: PreconditionTests.shape())
        }
        await #expect(processExitsWith: .failure) { [width] in
            let plan = HeadPlan(keyRuns: [.init(width: 2, channels: [0])], valueWidth: width, prunedMeans: [])
            _ = plan.blockByteCount(shape: PreconditionTests.shape())
        }
    }

    @Test("the size of a block of a wrong plan is refused with a message")
    func blockSizeMessage() async {
        let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            let plan = HeadPlan(keyRuns: [.init(width: 2, channels: [0])], valueWidth: 0, prunedMeans: [])
            _ = plan.blockByteCount(shape: PreconditionTests.shape())
        }
        #expect(result != nil)
        #if DEBUG  // Optimized programs end without a message.
            let errors = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
            #expect(errors.contains("not a plan for these heads: widths are of [2, 4, 8, 16]"))
        #endif
    }

    @Test("a mask is of channels that heads have")
    func masks() async {
        await #expect(processExitsWith: .failure) {
            let plan = HeadPlan(keyRuns: [.init(width: 2, channels: [4])], valueWidth: 2, prunedMeans: [])
            _ = plan.keepMask(keyDimension: 4)
        }
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
        #expect(window.keys.bytes.count == cache.layers[0].keys.byteCount)
        for _ in 0..<5 { try compressed.append([cache.layers[0]], tokens: [1, 2, 3]) }
        #expect(compressed.tokenCount == 18)
        let grown = try #require(compressed.layers[0].residualWindow)
        #expect(grown.keys.bytes.count <= 2 * 18 * 2 * 64 * 2)
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
