import TestSupport
import Testing
import ThinkCompress

/// Pruned value channels: which they are, and what blocks and restored rows have of the others.
@Suite struct ValueChannelTests {
    // MARK: - Which channels

    @Test("keeps the channels that the plain formula keeps", arguments: ["0.2", "0.35", "0.74"], [false, true])
    func choosesReferenceChannels(ratio: String, knowsWeights: Bool) async throws {
        let path = ProjectFiles.fixture("values.safetensors")
        let file = try SafetensorsFile(MappedFile.bytes(path: path))
        let cache = try CacheDump.read(path: path)
        let weighed = try KVCache(
            layers: cache.layers.enumerated().map { index, layer in
                let weights = try #require(file.tensors["layers.\(index).o2"])
                return KVCacheLayer(
                    keys: layer.keys,
                    values: layer.values,
                    outputWeights: knowsWeights
                        ? KVTensor(
                            bytes: weights.bytes,
                            elementType: .float32,
                            heads: 1,
                            tokens: 1,
                            headDimension: 40
                        ).numbers : nil
                )
            }
        )
        let compressed = try await CompressedCache(compressing: weighed, recipe: Recipe("think(values=\(ratio))"))
        #expect(compressed.layers.count == 2)
        for (index, layer) in compressed.layers.enumerated() {
            let name = "layers.\(index).values\(ratio).\(knowsWeights ? "keep" : "norms")"
            let expected = try #require(file.tensors[name])
            #expect(layer.plan.heads.flatMap(\.valueKeepMask) == expected.bytes.array.map { $0 != 0 })
            // Keys keep all channels.
            #expect(layer.plan.heads.allSatisfy { $0.keptChannelCount == 20 })
        }
    }

    /// A cache of one layer and KV head.
    private static func cache(
        values: [Float],
        weights: [Float]? = nil,
        profile: [Float]? = nil,
        dimension: Int
    ) throws -> KVCache {
        let values = KVTensor(values, elementType: .float16, heads: 1, headDimension: dimension)
        let keys = KVTensor(
            [Float](repeating: 1, count: values.tokens),
            elementType: .float16,
            heads: 1,
            headDimension: 1
        )
        return try KVCache(
            layers: [
                KVCacheLayer(
                    keys: keys,
                    values: values,
                    profile: profile.map { LayerProfile(meanSquaredQueries: [1], outputWeights: $0) },
                    outputWeights: weights
                )
            ]
        )
    }

    private static func kept(_ cache: KVCache, _ recipe: String = "think(values=0.5)") async throws -> [UInt16] {
        try await CompressedCache(compressing: cache, recipe: Recipe(recipe)).layers[0].plan.heads[0].valueChannels
    }

    @Test(
        "prunes the exact share of the channels, rounded down",
        arguments: [
            (100, "0.29", 29), (128, "0.4", 51), (64, "0.015624", 0), (64, "0.015625", 1), (3, "0.333334", 1),
            (3, "0.999999", 2), (1, "0.999999", 0), (2, "0.5", 1), (1024, "0.999999", 1023),
        ]
    )
    func prunesShare(dimension: Int, ratio: String, pruned: Int) async throws {
        let values = (0..<3 * dimension).map { Float($0 % 7) }
        let kept = try await Self.kept(Self.cache(values: values, dimension: dimension), "think(values=\(ratio))")
        #expect(kept.count == dimension - pruned)
        #expect(kept == kept.sorted())
    }

    @Test("keeps the lower of channels that score alike")
    func keepsLowerOfEqual() async throws {
        for (row, kept) in [([1, 1, 1, 1], [0, 1]), ([1, 2, -1, 1], [0, 1]), ([0, 0, 3, -3], [2, 3])]
            as [([Float], [UInt16])]
        {
            let values = [[Float]](repeating: row, count: 3).flatMap { $0 }
            #expect(try await Self.kept(Self.cache(values: values, dimension: 4)) == kept)
        }
    }

    @Test("scores by the profile's output weights, else the model's, else norms alone; whatever keys are scored by")
    func sourcesOfWeights() async throws {
        let values: [Float] = [1, 2, 3, 4, 1, 2, 3, 4]
        func cache(_ weights: [Float]?, _ profile: [Float]?) throws -> KVCache {
            try Self.cache(values: values, weights: weights, profile: profile, dimension: 4)
        }
        #expect(try await Self.kept(cache(nil, nil)) == [2, 3])
        #expect(try await Self.kept(cache([100, 1, 1, 1], nil)) == [0, 3])
        #expect(try await Self.kept(cache([100, 1, 1, 1], [100, 100, 1, 0])) == [0, 1])
        #expect(try await Self.kept(cache(nil, [100, 100, 1, 0])) == [0, 1])
        #expect(try await Self.kept(cache([100, 1, 1, 1], nil), "think(keys=0,values=0.5,score=keys)") == [0, 3])
        // Keys need queries where some of them are to be pruned.
        let error = await #expect(throws: CodecError.self) {
            try await Self.kept(cache(nil, nil), "think(keys=0.1,values=0.5)")
        }
        #expect(error?.code == .missingQueries)
    }

    @Test(
        "output weights must be of the layer's shape",
        arguments: [[], [1, 1], [1, -1, 1, 1], [1, 1, 1, .nan]] as [[Float]]
    )
    func impossibleWeights(weights: [Float]) throws {
        let error = #expect(throws: KVCacheError.self) {
            try Self.cache(values: [1, 2, 3, 4], weights: weights, dimension: 4)
        }
        #expect(error?.code == .invalidProfile && error?.message.contains("output weights") == true)
    }

    @Test("refuses values that are not finite only where they are scored", arguments: [Float.nan, .infinity])
    func refusesValues(number: Float) async throws {
        var values = [Float](repeating: 1, count: 40 * 4)
        values[37 * 4 + 2] = number
        let cache = try Self.cache(values: values, dimension: 4)
        let error = await #expect(throws: CodecError.self) { try await Self.kept(cache) }
        #expect(error?.code == .unsupportedValue)
        #expect(
            error?.description.contains("(layer 0, head 0, token 37, channel 2)") == true,
            "\(String(describing: error))"
        )
        #expect(try await Self.kept(cache, "think(keys=0.5,score=keys)").count == 4)
    }

    @Test("a layer without values, or with one channel, keeps what it has", arguments: [0, 1])
    func fewChannels(dimension: Int) async throws {
        var generator = SplitMix64(seed: 3)
        let geometry = try LayerGeometry(kvHeads: 1, keyDimension: 4, valueDimension: dimension)
        let layer = KVCacheLayer.random(geometry, elementType: .float16, rows: 70, using: &generator)
        let cache = try KVCache(layers: [layer])
        let recipe = try Recipe("think(keys=0.5,values=0.9,score=keys)+kivi(bits=2)")
        let plan = try await CompressedCache(compressing: cache, recipe: recipe).layers[0].plan.heads[0]
        #expect(plan.keptValueChannelCount == dimension)
        #expect(plan.keptChannelCount == 2)
    }

    // MARK: - What blocks have

    struct Case: Sendable, CustomTestStringConvertible {
        let dimension: Int
        /// The share pruned, and the channels kept.
        let ratio: String
        let kept: Int
        var testDescription: String { "\(kept) of \(dimension)" }
    }

    static let cases = [
        Case(dimension: 64, ratio: "0.99", kept: 1), Case(dimension: 64, ratio: "0.96", kept: 3),
        Case(dimension: 64, ratio: "0.69", kept: 20), Case(dimension: 64, ratio: "0.2", kept: 52),
        Case(dimension: 64, ratio: "0.02", kept: 63), Case(dimension: 128, ratio: "0.4", kept: 77),
    ]

    static let codings = [
        "f16", "bf16", "f32", "kivi(bits=1,residual=32)", "kivi(bits=2,residual=32,sinks=4)",
        "kivi(bits=3,residual=32,ranges=fitted)", "kivi(keys=2,values=4,group=64,residual=0)",
        "kivi(bits=5,residual=32,scales=compact)", "kivi(bits=8,group=128,residual=0)",
        "kivi(bits=2,residual=32,sinks=4,ranges=fitted,scales=compact,rotate=values)",
    ]

    /// Blocks of kept channels are those of a cache that has no others.
    @Test("codes kept channels as if they were all, others are zero or their mean", arguments: cases, codings)
    func codesKeptChannels(_ test: Case, coding: String) async throws {
        let type = ElementType.allCases.first { coding == $0.codecName } ?? .float16
        for restoresMeans in [false, true] {
            var shape = TestCache()
            (shape.layers, shape.headDimension, shape.tokens, shape.elementType) = (1, test.dimension, 200, type)
            let source = try shape.makeQuickly()
            let layer = source.layers[0]
            let think = "think(values=\(test.ratio),recent=0\(restoresMeans ? ",restore=mean" : ""))"
            let pruned = try await CompressedCache(compressing: source, recipe: Recipe("\(think)+\(coding)")).layers[0]
            let masks = pruned.plan.heads.map(\.valueKeepMask)
            #expect(masks.allSatisfy { $0.count(where: \.self) == test.kept })
            // The kept channels alone, as a cache.
            let numbers = layer.values.numbers
            let rows = 2 * 200
            var narrow: [Float] = []
            for index in numbers.indices {
                let (row, channel) = index.quotientAndRemainder(dividingBy: test.dimension)
                if masks[row / 200][channel] { narrow.append(numbers[index]) }
            }
            let alone = KVCacheLayer(
                keys: layer.keys,
                values: KVTensor(narrow, elementType: type, heads: 2, headDimension: test.kept)
            )
            let expected = try await CompressedCache(
                compressing: KVCache(layers: [alone]),
                recipe: Recipe("think(keys=0,recent=0,score=keys)+\(coding)")
            ).layers[0]
            let blocks = expected.extent.blockEnd
            #expect(pruned.extent.blockEnd == blocks && blocks >= 128)
            for block in pruned.extent.blocks {
                for head in 0..<2 {
                    #expect(pruned.block(block, head: head).array == expected.block(block, head: head).array)
                }
            }
            let restored = try pruned.decompress(rows: 0..<200, as: type).values.numbers
            let kept = try expected.decompress(rows: 0..<200, as: type).values.numbers
            let means = (0..<2).map { head in
                let ofHead = head * 200 * test.dimension..<(head + 1) * 200 * test.dimension
                return Self.means(numbers[ofHead], dimension: test.dimension, type: type)
            }
            let sinks = pruned.plan.sinks
            var differences = 0
            for row in 0..<rows {
                var next = kept[row * test.kept..<(row + 1) * test.kept]
                let inBlocks = (sinks..<blocks).contains(row % 200)
                for (channel, isKept) in masks[row / 200].enumerated() {
                    let number = restored[row * test.dimension + channel]
                    let expected: Float
                    if isKept {
                        expected = next.popFirst() ?? .nan
                    } else if !inBlocks {
                        expected = numbers[row * test.dimension + channel]
                    } else {
                        expected = restoresMeans ? means[row / 200][channel] : 0
                    }
                    if number != expected { differences += 1 }
                }
            }
            #expect(differences == 0)
        }
    }

    /// What stands in for each channel: its mean as Formats/think.md sums it, runs of 32 rows in float32 and the runs in
    /// float64, rounded to the type.
    private static func means(_ numbers: ArraySlice<Float>, dimension: Int, type: ElementType) -> [Float] {
        let numbers = Array(numbers)
        let rows = numbers.count / dimension
        let means = (0..<dimension).map { channel -> Float in
            var total = 0.0
            for start in stride(from: 0, to: rows, by: 32) {
                var run: Float = 0
                for row in start..<min(start + 32, rows) { run += numbers[row * dimension + channel] }
                total += Double(run)
            }
            return Float(total / Double(rows))
        }
        return KVTensor(means, elementType: type, heads: 1, headDimension: dimension).numbers
    }

    @Test("keeps the prompt's decision for tokens that arrive later, one by one or all at once")
    func keepsDecision() async throws {
        var shape = TestCache()
        (shape.layers, shape.headDimension, shape.tokens) = (1, 20, 300)
        let source = try shape.makeQuickly()
        let recipe = try Recipe("think(values=0.4,recent=0,restore=mean)+kivi(bits=4,residual=32)")
        let prompt = try await CompressedCache(compressing: source.prefix(80), recipe: recipe)
        var (oneByOne, atOnce) = (prompt, prompt)
        for token in 80..<300 { try oneByOne.append(source.layers(tokens: token..<token + 1)) }
        try atOnce.append(source.layers(tokens: 80..<300))
        #expect(oneByOne.layers[0].plan == prompt.layers[0].plan)
        #expect(prompt.layers[0].plan.heads.allSatisfy { $0.keptValueChannelCount == 12 })
        #expect(CacheContent(oneByOne.layers[0]).difference(from: CacheContent(atOnce.layers[0])) == nil)
        #expect(oneByOne.blockTokenCount == 256)
    }
}
