import TestSupport
import Testing
import ThinkCompress

@Suite struct CalibratedCodecTests {
    static func cache(
        layers: Int = 2,
        tokens: Int = 600,
        dimension: Int = 64,
        type: ElementType = .float16
    ) throws -> KVCache {
        var shape = TestCache()
        (shape.layers, shape.headDimension, shape.tokens, shape.elementType) = (layers, dimension, tokens, type)
        shape.window = min(32, tokens)
        return try shape.makeQuickly().withRandomBases()
    }

    private static func compressed(_ cache: KVCache, _ recipe: String) async throws -> CompressedCache {
        try await CompressedCache(compressing: cache, recipe: Recipe(recipe))
    }

    // MARK: - Decisions

    @Test("blocks take no more than the budget, and almost that", arguments: [1.0, 1.5, 2, 3])
    func budget(bits: Double) async throws {
        let cache = try Self.cache()
        let compressed = try await Self.compressed(cache, "calibrated(bits=\(bits))")
        #expect(compressed.shape.blockLength == 64 && compressed.shape.residualWindow == 128)
        let bytes = compressed.layers.reduce(0) { $0 + $1.blockBytes }
        let values = compressed.layers.reduce(0) { $0 + $1.geometry.valuesPerToken * 64 }
        let used = Double(8 * bytes) / Double(values)
        #expect(used <= bits && used > bits - 0.25, "\(used)")
        for head in compressed.layers.flatMap(\.plan.heads) {
            let components = try #require(head.components)
            for plan in [components.keys, try #require(components.values)] {
                let widths = plan.runs.map(\.coding.width)
                #expect(widths == widths.sorted(by: >) && Set(widths).isSubset(of: [1, 2, 3, 4]))
                #expect(plan.runs.allSatisfy { $0.coding.scales == .compact && $0.coding.ranges == .fitted })
            }
        }
    }

    @Test("errors fall as budgets grow, and are far below those of dropping everything")
    func errorsFall() async throws {
        let cache = try Self.cache(layers: 1, tokens: 300)
        var former = Double.infinity
        for bits in ["1", "2", "3", "4"] {
            let layer = try await Self.compressed(cache, "calibrated(bits=\(bits))").layers[0]
            let restored = try layer.decompress(rows: 0..<layer.rowCount, as: .float32)
            var error = 0.0
            for part in CachePart.allCases {
                error += zip(cache.layers[0][part].numbers, restored[part].numbers).reduce(0) {
                    $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1))
                }
            }
            #expect(error < former * 0.7, "\(bits)")
            former = error
        }
        let squares = CachePart.allCases.reduce(0.0) { sum, part in
            cache.layers[0][part].numbers.reduce(sum) { $0 + Double($1 * $1) }
        }
        #expect(former < squares / 5)
    }

    @Test("layers whose errors cost more get more bits")
    func sensitivityDecides() async throws {
        let cache = try Self.cache(layers: 2)
        func scaled(_ basis: ComponentBasis, by factor: Float) -> ComponentBasis {
            ComponentBasis(
                matrix: basis.matrix,
                scales: basis.scales,
                variances: basis.variances,
                weights: basis.weights.map { $0 * factor }
            )
        }
        var layers = cache.layers
        let profile = try #require(layers[1].profile)
        let bases = try #require(profile.bases)
        layers[1] = layers[1].withProfile(
            LayerProfile(
                meanSquaredQueries: profile.meanSquaredQueries,
                bases: LayerBases(
                    archives: [],
                    rotaryFrequencies: [],
                    keys: bases.keys.map { scaled($0, by: 8) },
                    values: bases.values.map { scaled($0, by: 8) }
                )
            )
        )
        let compressed = try await Self.compressed(KVCache(layers: layers), "calibrated(bits=1.5)")
        #expect(compressed.layers[0].blockBytes < compressed.layers[1].blockBytes)
    }

    @Test("a prompt that fills no block is planned by the profile, and blocks that come later by that plan")
    func shortPrompt() async throws {
        let cache = try Self.cache(layers: 1, tokens: 20)
        var compressed = try await Self.compressed(cache, "calibrated(bits=2,residual=0,sinks=0)")
        #expect(compressed.layers[0].extent.blocks.isEmpty)
        let more = try Self.cache(layers: 1, tokens: 300).layers[0]
        let rows = KVCacheLayer(keys: more.keys[tokens: 20..<300], values: more.values[tokens: 20..<300])
        try compressed.append([rows])
        #expect(compressed.layers[0].extent.blocks == 0..<4)
        let bits = Double(8 * compressed.layers[0].blockBytes) / Double(64 * 2 * 2 * 64)
        #expect(bits > 1.7 && bits <= 2)
        let bases = try #require(cache.layers[0].profile?.bases)
        for (basis, head) in zip(bases.keys, compressed.layers[0].plan.heads) {
            let keys = try #require(head.components).keys
            // The basis's components are in order of their variances.
            let rows = basis.matrix.array.prefix(64 * keys.componentCount).map { Int8(bitPattern: $0) }
            #expect(keys.matrix == rows)
        }
    }

    // MARK: - Refusals

    @Test("without bases it says how to get them")
    func missingBases() async throws {
        var shape = TestCache()
        shape.tokens = 200
        let cache = try shape.makeQuickly()
        let error = await #expect(throws: CodecError.self) {
            _ = try await Self.compressed(cache, "calibrated(bits=1.5)")
        }
        #expect(error?.code == .missingBases && error?.layer == 0)
        #expect(error?.message.contains("think-compress profile") == true)
        #expect(error?.message.contains("--profile") == true)
    }

    @Test("a budget below a quad of components of one bit is refused")
    func leastBudget() async throws {
        let cache = try Self.cache(dimension: 4)
        await #expect(throws: CodecError.self) { _ = try await Self.compressed(cache, "calibrated(bits=1)") }
    }

    @Test("numbers that can't be quantized are named")
    func unsupportedNumbers() async throws {
        let cache = try Self.cache(layers: 1, type: .float32)
        var numbers = cache.layers[0].values.numbers
        numbers[64 * 300 + 7] = .infinity
        let values = KVTensor(numbers, elementType: .float32, heads: 2, headDimension: 64)
        let layer = KVCacheLayer(keys: cache.layers[0].keys, values: values).withProfile(cache.layers[0].profile)
        let error = await #expect(throws: CodecError.self) {
            _ = try await Self.compressed(KVCache(layers: [layer]), "calibrated(bits=1.5)")
        }
        #expect(error?.code == .unsupportedValue)
        #expect(error?.token == 300 && error?.channel == 7)
    }

    @Test(
        "recipes that can't be are refused",
        arguments: [
            "calibrated", "calibrated(bits=0.1)", "calibrated(bits=1.5)+kivi(bits=2)",
            "think(keys=0.4)+calibrated(bits=1.5)", "calibrated(bits=1.5,group=32)",
        ]
    )
    func refusedRecipes(text: String) {
        #expect(throws: RecipeError.self) { _ = try Recipe(text) }
    }

    @Test("the canonical text leaves out defaults")
    func canonicalText() throws {
        let text = try Recipe("calibrated(sinks=4,bits=1.50,residual=256)").description
        #expect(text == "calibrated(bits=1.5,residual=256)")
        #expect(try Recipe(text).residualWindow == 256 && Recipe(text).blockLength == 64)
        #expect(try Recipe(CalibratedCodec(budget: BitBudget(millibits: 1500))).description == "calibrated(bits=1.5)")
    }

    // MARK: - Life

    @Test(
        "tokens that come one by one give the same bytes as all at once by the same plan",
        arguments: ElementType.allCases
    )
    func appending(type: ElementType) async throws {
        let cache = try Self.cache(layers: 1, tokens: 700, type: type)
        let whole = try await Self.compressed(cache, "calibrated(bits=2)").layers[0]
        let source = cache.layers[0]
        var layer = CompressedLayer(shape: whole.shape, index: 0, plan: whole.plan)
        for (start, end) in [(0, 3), (3, 130), (130, 131), (131, 400), (400, 700)] {
            try layer.append(keys: source.keys[tokens: start..<end], values: source.values[tokens: start..<end])
        }
        #expect(CacheContent(layer).difference(from: CacheContent(whole)) == nil)
    }

    @Test("a cut block returns to the window as it is restored", arguments: [64, 500])
    func truncating(count: Int) async throws {
        let cache = try Self.cache(layers: 1)
        var layer = try await Self.compressed(cache, "calibrated(bits=2)").layers[0]
        let before = try layer.decompress(rows: 0..<count, as: .float16)
        try layer.truncate(to: count)
        let after = try layer.decompress(rows: 0..<count, as: .float16)
        #expect(after.keys.hasSameBits(as: before.keys) && after.values.hasSameBits(as: before.values))
    }

    @Test("dimensions that are no multiple of 16 work", arguments: [18, 40])
    func oddDimensions(dimension: Int) async throws {
        let cache = try Self.cache(layers: 1, tokens: 300, dimension: dimension)
        let layer = try await Self.compressed(cache, "calibrated(bits=3.5,residual=0)").layers[0]
        let restored = try layer.decompress(rows: 0..<256, as: .float32)
        for part in CachePart.allCases {
            let original = cache.layers[0][part][tokens: 0..<256].numbers
            let error = zip(original, restored[part].numbers).reduce(0.0) { $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1)) }
            #expect(error < original.reduce(0.0) { $0 + Double($1 * $1) } / 8)
        }
    }
}
