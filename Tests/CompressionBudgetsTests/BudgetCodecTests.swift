import TestSupport
import Testing
import ThinkCompress

@Suite struct BudgetCodecTests {
    private static func cache(layers: Int = 2, tokens: Int = 600, window: Int = 40) throws -> KVCache {
        var shape = TestCache()
        (shape.layers, shape.headDimension, shape.tokens, shape.window) = (layers, 64, tokens, window)
        return try shape.makeQuickly()
    }

    private static func compressed(_ cache: KVCache, _ recipe: String) async throws -> CompressedCache {
        try await CompressedCache(compressing: cache, recipe: Recipe(recipe))
    }

    @Test("the file has the plain recipe that was chosen, and says why")
    func plainRecipe() async throws {
        let cache = try Self.cache()
        let compressed = try await Self.compressed(cache, "auto(bits=2.4)")
        let recipe = try #require(compressed.recipe)
        #expect(recipe.description == "think(bits=2.55,values=2.25)")
        let choice = compressed.metadata[CacheCompressor.rationaleKey]
        #expect(choice?.hasPrefix("auto(bits=2.4): the largest budgets that fit 2.4 bits per number; ") == true)
        let plain = try await Self.compressed(cache, recipe.description)
        #expect(plain.layers.map(\.plan) == compressed.layers.map(\.plan))
    }

    @Test("blocks take no more bits than are given", arguments: [1.5, 2, 2.4, 3, 4, 5.25])
    func bits(bits: Double) async throws {
        let compressed = try await Self.compressed(Self.cache(), "auto(bits=\(bits))")
        let size = try await SnapshotWriter().size(of: compressed)
        let used = try #require(SnapshotSummary(compressed, quality: nil, size: size).blockBitsPerValue)
        #expect(used <= bits && used > bits - 0.25)
    }

    @Test("the snapshot is as many times smaller as was asked for", arguments: [2.5, 3, 3.5])
    func ratio(ratio: Double) async throws {
        let cache = try Self.cache(layers: 4, tokens: 1200)
        let compressed = try await Self.compressed(cache, "auto(ratio=\(ratio))")
        let size = try await SnapshotWriter().size(of: compressed)
        let found = SnapshotSummary(compressed, quality: nil, size: size).ratio
        #expect(found >= ratio && found < ratio * 1.1)
    }

    @Test("as many times smaller than all tokens, where some are dropped", arguments: [4, 5])
    func ratioOfAllTokens(ratio: Double) async throws {
        let cache = try Self.cache(layers: 4, tokens: 1600)
        let compressed = try await Self.compressed(cache, "snapkv(keep=0.5)+auto(ratio=\(ratio))")
        let size = try await SnapshotWriter().size(of: compressed)
        let summary = SnapshotSummary(compressed, quality: nil, size: size)
        #expect(summary.ratio >= ratio && summary.ratio < ratio * 1.15)
        #expect(summary.valueCount == cache.valueCount)
        let half = try await Self.compressed(cache, "snapkv(keep=0.5)")
        let halfSize = try await SnapshotWriter().size(of: half)
        let halfRatio = SnapshotSummary(half, quality: nil, size: halfSize).ratio
        #expect(halfRatio > 1.9 && halfRatio < 2)
    }

    @Test("a ratio out of reach names the greatest one")
    func tooGreatRatio() async throws {
        let error = await #expect(throws: CodecError.self) { try await Self.compressed(Self.cache(), "auto(ratio=9)") }
        #expect(error?.code == .unsupportedPlan)
        #expect(error?.message.contains("the most is about ratio=") == true)
    }

    @Test("the attention's error is within what was asked for, and a smaller budget would not keep to it")
    func error() async throws {
        let cache = try Self.cache()
        func error(_ recipe: String) async throws -> Float {
            let compressed = try await Self.compressed(cache, recipe)
            let quality = try await CacheComparison(original: cache, compressed: compressed).measure()
            return try #require(quality.total.attention)
        }
        let compressed = try await Self.compressed(cache, "auto(error=10%)")
        let recipe = try #require(compressed.recipe)
        #expect(try await error(recipe.description) <= 0.1)
        let rationale = compressed.metadata[CacheCompressor.rationaleKey]
        #expect(rationale?.hasPrefix("auto(error=10%): the smallest of 31 budgets that do, ") == true)
        let stage = try #require(Recipe(recipe, registry: .standard).steps[0].stage as? SoftThinKCodec)
        let values = try #require(stage.valueBudget)
        let smaller = BitBudget(millibits: (stage.budget.millibits + values.millibits) / 2 - 125)
        #expect(try await error("auto(bits=\(smaller.text))") > 0.1)
    }

    @Test("reports the progress of its search, ascending up to 1")
    func progress() async throws {
        let fractions = Recorder<Double>()
        _ = try await CompressedCache(
            compressing: Self.cache(),
            recipe: Recipe("auto(error=10%)"),
            progress: ProgressHandler { fractions.add($0) }
        )
        #expect(fractions.values == fractions.values.sorted() && fractions.values.last == 1)
        // Four or five budgets are tried, each by compressing two layers of two KV heads and measuring two layers.
        #expect((4 * 8...5 * 8).contains(fractions.values.count { $0 <= 0.8 }))
    }

    @Test("an error is kept by caches whose layers hold their last tokens alone")
    func errorOfPartlyHeldCache() async throws {
        let whole = try Self.cache()
        let layers = try whole.layers.map { layer in
            let rows = 200
            func last(_ tensor: KVTensor) throws -> KVTensor {
                let dimension = tensor.headDimension
                var numbers: [Float] = []
                for head in 0..<tensor.heads {
                    let end = (head + 1) * tensor.tokens * dimension
                    numbers += tensor.numbers[end - rows * dimension..<end]
                }
                return KVTensor(numbers, elementType: tensor.elementType, heads: tensor.heads, headDimension: dimension)
            }
            return KVCacheLayer(
                keys: try last(layer.keys),
                values: try last(layer.values),
                held: .last,
                queries: layer.queries
            )
        }
        let cache = try KVCache(layers: layers, tokenCount: whole.tokenCount)
        let compressed = try await Self.compressed(cache, "auto(error=30%)")
        let quality = try await CacheComparison(original: cache, compressed: compressed).measure()
        #expect(try #require(quality.total.attention) <= 0.3)
    }

    /// A layer in float32 of which some numbers are replaced: those of head 0, token 1.
    private static func layer(keys: Float? = nil, values: Float? = nil, queries: Float? = nil) throws -> KVCacheLayer {
        let source = try Self.cache().layers[0]
        func float32(_ tensor: KVTensor, _ number: Float?) -> KVTensor {
            var numbers = tensor.numbers
            if let number { numbers[70] = number }
            return KVTensor(numbers, elementType: .float32, heads: tensor.heads, headDimension: 64)
        }
        return KVCacheLayer(
            keys: float32(source.keys, keys),
            values: float32(source.values, values),
            queries: source.queries.map { float32($0, queries) }
        )
    }

    @Test("values so large that errors are beyond all limits are an error, not a crash")
    func errorOfHugeSinks() async throws {
        let cache = try KVCache(layers: [Self.layer(values: 3e38)])
        await #expect(throws: CodecError.self) { try await Self.compressed(cache, "auto(error=0.01%)") }
    }

    @Test(
        "numbers that hide all errors are named, with what takes them",
        arguments: CachePart.allCases,
        [Float.infinity, -.infinity, .nan]
    )
    func errorOfSinksThatAreNotFinite(part: CachePart, number: Float) async throws {
        let layer = try Self.layer(keys: part == .keys ? number : nil, values: part == .values ? number : nil)
        let cache = try KVCache(layers: [Self.layer(), layer])
        let error = await #expect(throws: CodecError.self) { try await Self.compressed(cache, "auto(error=2%)") }
        #expect(error?.code == .unsupportedValue)
        #expect([error?.layer, error?.head, error?.token, error?.channel] == [1, 0, 1, 6])
        #expect(
            error?.message
                == "a \(part == .keys ? "key" : "value") is \(number); auto(error=...) can measure no error of attention "
                + "beside it; take auto(bits=...) instead"
        )
        #expect(try await Self.compressed(cache, "auto(bits=2.4)").layers.count == 2)
    }

    @Test("queries that hide all errors are named, also where a profile decides in their place")
    func errorOfQueriesThatAreNotFinite() async throws {
        let layer = try Self.layer(queries: .nan)
        let numbers = [Float](repeating: 1, count: layer.keys.heads * 64)
        let sensitivity = LayerSensitivity(keys: numbers, values: numbers, valueVariances: numbers)
        let profile = LayerProfile(meanSquaredQueries: numbers, sensitivity: sensitivity)
        let cache = try KVCache(layers: [layer.withProfile(profile)])
        let error = await #expect(throws: CodecError.self) { try await Self.compressed(cache, "auto(error=2%)") }
        #expect(error?.code == .unsupportedValue)
        #expect(error?.message.hasPrefix("a query of query head 0 is not finite") == true)
        #expect(try await Self.compressed(cache, "auto(bits=2.4)").layers.count == 1)
    }

    @Test(
        "never takes more bits than are given, whatever the dimensions",
        arguments: [(16, 64), (40, 40), (80, 80), (64, 1)]
    )
    func dimensions(keys: Int, values: Int) async throws {
        var generator = SplitMix64(seed: 3)
        func tensor(_ dimension: Int) -> KVTensor {
            KVTensor(
                (0..<300 * dimension).map { _ in generator.normal() },
                elementType: .float32,
                heads: 1,
                headDimension: dimension
            )
        }
        let cache = try KVCache(layers: [KVCacheLayer(keys: tensor(keys), values: tensor(values))])
        for bits in [1.5, 2.5, 4] {
            do {
                let compressed = try await Self.compressed(cache, "auto(bits=\(bits))")
                let recipe = try Recipe(try #require(compressed.recipe), registry: .standard)
                let soft = try #require(recipe.steps[0].stage as? SoftThinKCodec)
                let used = soft.budget.bits * Double(keys) + (soft.valueBudget?.bits ?? 0) * Double(values)
                #expect(used <= bits * Double(keys + values))
            } catch let error as CodecError {
                #expect(error.code == .unsupportedPlan && error.message.hasPrefix("auto can't store"), "\(error)")
            }
        }
    }

    @Test("no stage follows it")
    func endsRecipe() throws {
        let error = #expect(throws: RecipeError.self) { try Recipe("auto(ratio=4)+kivi(bits=2)") }
        #expect(error?.suggestion == "auto(ratio=4)")
    }

    @Test("a rationale that came with a cache does not stay with another recipe")
    func staleRationale() async throws {
        let cache = try Self.cache()
        let old = try KVCache(layers: cache.layers, metadata: [CacheCompressor.rationaleKey: "auto", "a": "b"])
        #expect(try await Self.compressed(old, "exact").metadata == ["a": "b"])
    }

    @Test("a rationale leaves room for as much metadata as a snapshot can have", arguments: [1023, 1024])
    func fullMetadata(count: Int) async throws {
        let own = Dictionary(uniqueKeysWithValues: (0..<count).map { ("key \($0)", "value \($0)") })
        let cache = try KVCache(layers: Self.cache().layers, metadata: own)
        let compressed = try await Self.compressed(cache, "auto(bits=2.4)")
        #expect(compressed.metadata.filter { $0.key != CacheCompressor.rationaleKey } == own)
        #expect((compressed.metadata[CacheCompressor.rationaleKey] != nil) == (count < 1024))
        #expect(try await SnapshotWriter().size(of: compressed).fileBytes > 0)
        // One that came with the cache leaves its place.
        var older = own
        older["key 0"] = nil
        older[CacheCompressor.rationaleKey] = "auto"
        let again = try KVCache(layers: cache.layers, metadata: older)
        let rationale = try await Self.compressed(again, "auto(bits=2.4)").metadata[CacheCompressor.rationaleKey]
        #expect(rationale?.hasPrefix("auto(bits=2.4): ") == true)
    }

    @Test("exact keeps the cache's own type", arguments: [ElementType.float16, .bfloat16, .float32])
    func exact(type: ElementType) async throws {
        var shape = TestCache()
        (shape.layers, shape.tokens, shape.elementType) = (1, 40, type)
        let cache = try shape.makeQuickly()
        let compressed = try await Self.compressed(cache, "exact")
        #expect(compressed.recipe?.description == type.codecName)
        let restored = try compressed.layers[0].decompress(rows: 0..<40, as: type)
        #expect(restored.keys.numbers == cache.layers[0].keys.numbers)
    }

    @Test("an error out of reach names the least one")
    func tooSmallError() async throws {
        let error = await #expect(throws: CodecError.self) {
            try await Self.compressed(Self.cache(), "auto(error=0.01%)")
        }
        #expect(error?.code == .unsupportedPlan)
        #expect(error?.message.contains("the least is error=") == true)
    }

    @Test("errors are measured by queries, and on the whole cache")
    func needsQueries() async throws {
        let cache = try Self.cache(window: 0)
        let missing = await #expect(throws: CodecError.self) { try await Self.compressed(cache, "auto(error=5%)") }
        #expect(missing?.code == .missingQueries)
        var compressor = CacheCompressor(
            geometry: cache.geometry,
            tokenCount: cache.tokenCount,
            elementType: cache.elementType,
            recipe: try Recipe("auto(error=5%)")
        )
        #expect(compressor.recipe.needsWholeCache)
        let partial = await #expect(throws: CodecError.self) { try await compressor.add(cache.layers[0]) }
        #expect(partial?.message.contains("looks at the whole cache") == true)
    }

    @Test(
        "refuses what makes no sense, and names what is right",
        arguments: [
            ("auto", "takes one of", "auto(bits=2.4)"), ("auto(bits=2,ratio=4)", "takes one of", "auto(bits=2.4)"),
            ("auto(bits=1)", "from 1.5 to 5.25", "bits=2.4"), ("auto(bits=8)", "from 1.5 to 5.25", "bits=2.4"),
            ("auto(bits=x)", "a decimal", "bits=2.4"),
            ("auto(ratio=0.5)", "from 1 to 16", "auto(ratio=4)"), ("auto(ratio=-1)", "from 1 to 16", "auto(ratio=4)"),
            ("auto(error=2)", "with a % sign", "auto(error=2%)"), ("auto(error=0%)", "more than 0", "auto(error=2%)"),
            ("auto(error=101%)", "at most 100", "auto(error=2%)"),
        ]
    )
    func refusals(text: String, message: String, suggestion: String) throws {
        let error = #expect(throws: RecipeError.self) { try Recipe(text) }
        #expect(error?.message.contains(message) == true)
        #expect(error?.suggestion == suggestion)
    }

    @Test("keeps canonical text", arguments: ["auto(bits=2.4)", "auto(ratio=4)", "auto(error=0.5%)"])
    func canonicalText(text: String) throws { #expect(try Recipe(text).description == text) }

    @Test("presets are names for recipes")
    func presets() throws {
        #expect(CodecRegistry.standard.presets.map(\.name) == ["small", "balanced", "faithful"])
        for preset in CodecRegistry.standard.presets {
            #expect(try Recipe(preset.name).description == preset.recipe)
            #expect(CodecRegistry.standard.name(of: preset.recipe) == preset.name)
            let selected = try Recipe("snapkv(keep=0.50) + \(preset.name)")
            #expect(selected.description == "snapkv(keep=0.5)+\(preset.recipe)")
            #expect(CodecRegistry.standard.name(of: selected.description) == "snapkv(keep=0.5)+\(preset.name)")
        }
        #expect(CodecRegistry.standard.name(of: "kivi(bits=2)") == nil)
        #expect(try Recipe(" balanced ") == Recipe("think(bits=2.5,values=2.25)"))
        let error = #expect(throws: RecipeError.self) { try Recipe("balanced+kivi(bits=2)") }
        #expect(error?.suggestion == "think(bits=2.5,values=2.25)")
        for text in ["blanced", "think(keys=0.4)+balanced", "streaming+balanced+kivi(bits=2)", "balanced+streaming"] {
            #expect(throws: RecipeError.self) { try Recipe(text) }
        }
    }
}
