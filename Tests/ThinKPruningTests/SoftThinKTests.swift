import TestSupport
import Testing
import ThinkCompress

@testable import ThinKPruning

@Suite struct SoftThinKTests {
    /// A cache of one layer.
    private static func cache(
        tokens: Int = 100,
        dimension: Int = 64,
        kvHeads: Int = 2,
        window: Int = 40,
        type: ElementType = .float16
    ) throws -> KVCache {
        var shape = TestCache()
        (shape.layers, shape.headDimension, shape.tokens, shape.window) = (1, dimension, tokens, window)
        (shape.kvHeads, shape.queryHeads, shape.elementType) = (kvHeads, 2 * kvHeads, type)
        return try shape.makeQuickly()
    }

    private static func compressed(_ cache: KVCache, _ recipe: String) async throws -> CompressedLayer {
        try await CompressedCache(compressing: cache, recipe: Recipe(recipe)).layers[0]
    }

    // MARK: - Decisions

    @Test("keys take no more than the budget, and almost that", arguments: [1.0, 1.5, 2, 2.5, 3, 4])
    func budget(bits: Double) async throws {
        let layer = try await Self.compressed(Self.cache(dimension: 128), "think(bits=\(bits),recent=0)")
        var bytes = 0
        for plan in layer.plan.heads {
            var ofHead = 0
            for run in plan.keyRuns {
                #expect(run.coding.scales == .compact && run.coding.ranges == .fitted)
                #expect(SoftThinKCodec.defaultWidths.contains(run.coding.width))
                ofHead += KeyCodingErrors.byteCount(channels: run.channels.count, coding: run.coding, blockLength: 32)
            }
            bytes += (ofHead + 63) / 64 * 64
        }
        let used = Double(bytes * 8) / Double(2 * 128 * 32)
        #expect(used <= bits && used > bits - 0.15)
    }

    @Test("channels that matter more have no fewer bits, and those that matter least are their mean")
    func order() async throws {
        let dimension = 64
        var generator = SplitMix64(seed: 5)
        // Channel c has a spread of about (c + 1) / 16 around c.
        let keys = (0..<96 * dimension).map { index in
            Float(index % dimension) + generator.normal() * Float(index % dimension + 1) / 16
        }
        let tensor = KVTensor(keys, elementType: .float32, heads: 1, headDimension: dimension)
        let cache = try KVCache(layers: [KVCacheLayer(keys: tensor, values: tensor)])
        let layer = try await Self.compressed(cache, "think(bits=1.5,recent=0,score=keys,sinks=0)")
        let plan = layer.plan.heads[0]
        var widths = [Int](repeating: 0, count: dimension)
        for run in plan.keyRuns {
            for channel in run.channels { widths[Int(channel)] = run.coding.width }
        }
        #expect(widths == widths.sorted())
        #expect(widths[0] == 0 && widths[63] > 2)
        #expect(plan.keyMeans.count == dimension)
        for (channel, mean) in plan.keyMeans.enumerated() { #expect(abs(mean - Float(channel)) < 2) }
        let restored = try layer.decompress(rows: 0..<96, as: .float32).keys.numbers
        #expect((0..<96).allSatisfy { restored[$0 * dimension] == plan.keyMeans[0] })
    }

    @Test("heads share the layer's budget")
    func sharedBudget() async throws {
        let source = try Self.cache()
        // The second head's keys are a hundredth of what they were.
        let numbers = source.layers[0].keys.numbers.enumerated().map { $0 < 6400 ? $1 : $1 / 100 }
        let keys = KVTensor(numbers, elementType: .float32, heads: 2, headDimension: 64)
        let cache = try KVCache(layers: [KVCacheLayer(keys: keys, values: keys)])
        let layer = try await Self.compressed(cache, "think(bits=2,recent=0,score=keys)")
        let bits = layer.plan.heads.map { head in head.keyRuns.reduce(0) { $0 + $1.coding.width * $1.channels.count } }
        #expect(bits[0] > 2 * bits[1])
    }

    @Test("keys are weighted by what their errors cost, where a profile says so")
    func keySensitivities() async throws {
        var shape = TestCache()
        (shape.layers, shape.headDimension, shape.tokens, shape.window) = (1, 64, 100, 40)
        let cache = try shape.makeQuickly()
        let heads = cache.geometry.layers[0].kvHeads
        let ones = [Float](repeating: 1, count: heads * 64)
        // Errors of the first half of the channels cost a thousand times as much.
        let keys = (0..<heads * 64).map { $0 % 64 < 32 ? Float(1000) : 1 }
        let sensitivity = LayerSensitivity(keys: keys, values: ones, valueVariances: ones)
        let profile = LayerProfile(meanSquaredQueries: keys.reversed(), sensitivity: sensitivity)
        let compressed = try await CompressedCache(
            compressing: cache.withProfile([profile]),
            recipe: Recipe("think(bits=2,recent=0)")
        )
        for plan in compressed.layers[0].plan.heads {
            let bits = plan.keyRuns.reduce(into: [0, 0]) { sums, run in
                for channel in run.channels { sums[channel < 32 ? 0 : 1] += run.coding.width }
            }
            #expect(bits[0] > 2 * bits[1])
        }
    }

    @Test("what an earlier stage decided stays, and sinks are kept")
    func composition() async throws {
        let layer = try await Self.compressed(
            Self.cache(tokens: 200),
            "think(bits=2.5)+kivi(bits=2,scales=compact,ranges=fitted,rotate=values)"
        )
        #expect(layer.plan.sinks == 4)
        #expect(layer.shape.residualWindow == 128)
        for plan in layer.plan.heads {
            #expect(plan.values.rotation == .hadamard && plan.values.width == 2)
            #expect(plan.valueMeans.count == 64)
            #expect(plan.keyRuns.allSatisfy { $0.coding.ranges == .fitted })
        }
        #expect(try await Self.compressed(Self.cache(), "think(bits=2.5,sinks=0)").plan.sinks == 0)
    }

    @Test("a prompt without a whole block gets a plan", arguments: [1, 3, 31])
    func shortPrompts(tokens: Int) async throws {
        let layer = try await Self.compressed(Self.cache(tokens: tokens, window: 1), "think(bits=2.5,recent=0)")
        #expect(layer.plan.heads.allSatisfy { $0.keptChannelCount >= 1 && $0.keyMeans.count == 64 })
    }

    // MARK: - Text and refusals

    @Test(
        "keeps canonical text",
        arguments: [
            "think(bits=2.5)", "think(bits=0.5)", "think(bits=8.5,widths=4|8)", "think(bits=2.125,widths=0|1|2|3|4)",
            "think(bits=2,observe=16,recent=32,score=keys,sinks=0)",
        ]
    )
    func canonicalText(text: String) throws {
        #expect(try Recipe(text).description == text)
    }

    @Test("writes what was meant in canonical text")
    func otherText() throws {
        #expect(try Recipe("think(sinks=4,widths=0|2|3|4|5,bits=2.50,recent=128)").description == "think(bits=2.5)")
        #expect(try Recipe("think(bits=3.0)").description == "think(bits=3)")
    }

    @Test(
        "refuses what makes no sense, and names what is right",
        arguments: [
            ("think(keys=0.4,values=2)", "values=2 must be a decimal from 0 to less than 1", "values=0.2"),
            ("think(keys=0.4,widths=2|4)", "widths goes with bits", "think(bits=2.5)"),
            ("think(bits=2.5,values=0.2)", "values=0.2 must be a decimal", "values=2.25"),
            ("think(bits=2,values=9)", "values=9 must be a decimal", "values=2.25"),
            ("think(bits=0.4)", "bits=0.4 must be a decimal from 0.5 to 8.5", "bits=2.5"),
            ("think(bits=9)", "must be a decimal", "bits=2.5"), ("think(bits=2.1234)", "must be a decimal", "bits=2.5"),
            ("think(bits=.5)", "must be a decimal", "bits=2.5"), ("think(bits=-2)", "must be a decimal", "bits=2.5"),
            ("think(bits=1e1)", "must be a decimal", "bits=2.5"),
            ("think(bits=2.5,widths=2|0)", "ascending", "widths=0|2|3|4|5"),
            ("think(bits=2.5,widths=0)", "ascending", "widths=0|2|3|4|5"),
            ("think(bits=2.5,widths=0|6)", "ascending", "widths=0|2|3|4|5"),
            ("think(bits=2.5,widths=1|2|3|4|5)", "up to 4", "widths=0|2|3|4|5"),
            ("think(bits=2.5,keys=0.4)", "keys does not go with bits", "think(bits=2.5)"),
            ("think(bits=2.5,restore=mean)", "restore does not go with bits", "think(bits=2.5)"),
            ("think(keys=0.4,sinks=4)", "sinks goes with bits", "think(bits=2.5)"),
        ]
    )
    func refusals(text: String, message: String, suggestion: String) throws {
        let error = #expect(throws: RecipeError.self) { try Recipe(text) }
        #expect(error?.message.contains(message) == true, "\(String(describing: error))")
        #expect(error?.suggestion == suggestion)
    }

    @Test("a budget that can't be met names the least that can")
    func leastBudget() async throws {
        let recipe = try Recipe("think(bits=1.5,widths=2|3,recent=0)")
        let cache = try Self.cache()
        let error = await #expect(throws: CodecError.self) {
            try await CompressedCache(compressing: cache, recipe: recipe)
        }
        #expect(error?.code == .unsupportedPlan && error?.layer == 0)
        #expect(error?.message.hasSuffix("the least is bits=2.5") == true)
        _ = try await CompressedCache(compressing: cache, recipe: Recipe("think(bits=2.5,widths=2|3,recent=0)"))
    }

    @Test("refuses to share bits between more heads than it can weigh in time")
    func tooManyHeads() async throws {
        let cache = try Self.cache(tokens: 2, dimension: 1024, kvHeads: 64, window: 0)
        let error = await #expect(throws: CodecError.self) {
            try await CompressedCache(
                compressing: cache,
                recipe: Recipe("think(bits=8,widths=4|8,score=keys)+kivi(bits=2,group=128)")
            )
        }
        #expect(error?.code == .unsupportedPlan && error?.layer == 0)
        #expect(error?.message.contains("choose smaller blocks") == true)
    }

    @Test("goes by the keys' errors where no queries came, and says so")
    func missingQueries() async throws {
        let cache = try Self.cache(window: 0)
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("think(bits=2)"))
        let asked = try await CompressedCache(compressing: cache, recipe: Recipe("think(bits=2,score=keys)"))
        #expect(compressed.recipe?.description == "think(bits=2,score=keys)")
        #expect(compressed.metadata[CacheCompressor.rationaleKey]?.hasPrefix("no queries came") == true)
        #expect(asked.metadata[CacheCompressor.rationaleKey] == nil)
        #expect(compressed.layers[0].plan == asked.layers[0].plan)
        var compressor = CacheCompressor(
            geometry: cache.geometry,
            tokenCount: cache.tokenCount,
            elementType: cache.elementType,
            recipe: try Recipe("think(bits=2)")
        )
        for layer in cache.layers { try await compressor.add(layer) }
        #expect(compressor.layers[0].plan == asked.layers[0].plan)
    }

    @Test(
        "values have the widest width within their budget",
        arguments: [(1.25, 1), (2, 1), (2.25, 2), (4.2, 3), (8, 5)]
    )
    func uniformValues(bits: Double, width: Int) async throws {
        let layer = try await Self.compressed(Self.cache(), "think(bits=2.5,values=\(bits))")
        for plan in layer.plan.heads {
            #expect(plan.values == (try Coding(width: width, scales: .compact, ranges: .fitted, rotation: .hadamard)))
            #expect(plan.valueMeans.count == 64)
        }
    }

    @Test("with a profile values share their budget by what their errors cost")
    func sharedValues() async throws {
        var shape = TestCache()
        (shape.layers, shape.headDimension, shape.tokens, shape.window) = (3, 64, 100, 40)
        let cache = try shape.makeQuickly()
        let heads = cache.geometry.layers[0].kvHeads
        // Errors of each head cost 16 times as much as those of the head before.
        var cost: Float = 1
        var profile: [LayerProfile] = []
        for _ in 0..<3 {
            var values: [Float] = []
            for _ in 0..<heads {
                values += [Float](repeating: cost, count: 64)
                cost *= 16
            }
            let ones = [Float](repeating: 1, count: heads * 64)
            profile.append(
                LayerProfile(
                    meanSquaredQueries: ones,
                    sensitivity: LayerSensitivity(keys: ones, values: values, valueVariances: ones)
                )
            )
        }
        let profiled = try cache.withProfile(profile)
        let compressed = try await CompressedCache(
            compressing: profiled,
            recipe: Recipe("think(bits=2.5,values=2.25)")
        )
        let widths = compressed.layers.flatMap { $0.plan.heads.map { $0.values.width } }
        #expect(widths == widths.sorted() && widths.first == 1 && widths.last == 5)
        let stored = widths.reduce(0) { $0 + ValueWidths.byteCount(dimension: 64, width: $1, blockLength: 32) }
        let budget = widths.count * 64 * 32 * 9 / 32
        #expect(stored <= budget && stored > budget - 64 * 32 / 8)
        // Layer by layer, with the profile known before, it is the same.
        var compressor = CacheCompressor(
            geometry: cache.geometry,
            tokenCount: cache.tokenCount,
            elementType: cache.elementType,
            recipe: try Recipe("think(bits=2.5,values=2.25)"),
            profile: profile
        )
        for layer in cache.layers { try await compressor.add(layer) }
        #expect(compressor.layers.map(\.plan) == compressed.layers.map(\.plan))
    }

    @Test("values of a width take what a block has for them", arguments: [1, 16, 40, 64, 80, 128], 1...5)
    func valueBytes(dimension: Int, width: Int) async throws {
        let bits = ValueWidths.budgets(dimension: dimension, blockLength: 32)[width - 1]
        guard BitBudget.range.contains(bits) else { return }
        let cache = try await CompressedCache(
            compressing: Self.cache(tokens: 32, dimension: dimension, kvHeads: 1, window: 0),
            recipe: Recipe("think(bits=8,values=\(bits.text),widths=4,recent=0,sinks=0)")
        )
        let head = cache.layers[0].plan.heads[0]
        #expect(head.values.width == width)
        let coding = head.keyRuns[0].coding
        let keys = KeyCodingErrors.byteCount(channels: dimension, coding: coding, blockLength: 32)
        let values = ValueWidths.byteCount(dimension: dimension, width: width, blockLength: 32)
        func padded(_ bytes: Int) -> Int { (bytes + 63) / 64 * 64 }
        let size = try await SnapshotWriter().size(of: cache)
        let pages = try #require(size.sections.first { $0.kind == .pages })
        #expect(pages.length == padded(padded(keys) + values))
    }

    @Test("a block of channels weighs its mean variance times the sum of its sensitivities")
    func weightsOfBlocks() throws {
        // Two heads of dimension 80, which are rotated in blocks of 16.
        let geometry = try LayerGeometry(kvHeads: 2, keyDimension: 1, valueDimension: 80)
        let cache = try CacheGeometry([geometry])
        var (sensitivities, variances) = ([Float](repeating: 0, count: 160), [Float](repeating: 0, count: 160))
        // The first head: errors matter in one block, and vary in another. The second: a little of both in one.
        (sensitivities[3], variances[20], sensitivities[81], variances[82]) = (1000, 1000, 1, 1)
        let profile = LayerProfile(
            meanSquaredQueries: [1, 1],
            sensitivity: LayerSensitivity(keys: [1, 1], values: sensitivities, valueVariances: variances)
        )
        let widths = ValueWidths([profile], geometry: cache, budget: BitBudget(millibits: 2000), blockLength: 32)
        let allocated = widths.allocated(layerCount: 1)
        #expect(allocated == [[1, 2]])
    }

    @Test("a budget of values that can't be met names the least that can")
    func valueBudgetTooSmall() async throws {
        let error = await #expect(throws: CodecError.self) {
            try await Self.compressed(Self.cache(), "think(bits=2.5,values=1.2)")
        }
        #expect(error?.code == .unsupportedPlan)
        #expect(error?.message.contains("the least is values=1.25") == true)
    }

    @Test("names a key that can't be quantized", arguments: [Float.nan, .infinity, 70000])
    func unsupportedKeys(number: Float) async throws {
        var numbers = try Self.cache(tokens: 40).layers[0].keys.numbers
        numbers[64 * 35 + 7] = number
        let keys = KVTensor(numbers, elementType: .float32, heads: 2, headDimension: 64)
        let cache = try KVCache(layers: [KVCacheLayer(keys: keys, values: keys)])
        let error = await #expect(throws: CodecError.self) {
            try await CompressedCache(compressing: cache, recipe: Recipe("think(bits=2,score=keys,recent=0,sinks=0)"))
        }
        #expect(error?.code == .unsupportedValue)
        #expect(error?.head == 0 && error?.token == 35 && error?.channel == 7)
    }
}
