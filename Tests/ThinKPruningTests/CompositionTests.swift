import TestSupport
import Testing
import ThinkCompress

/// Recipes of two stages against doing the steps by hand.
@Suite struct CompositionTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let think: String
        let kivi: String
        let dimension: Int
        var type = ElementType.float16
        var testDescription: String { "think(\(think))+kivi(\(kivi)), dimension \(dimension), \(type.name)" }
        var asMean: Bool { think.contains("mean") }
    }

    static let cases = [
        Case(think: "keys=0.4", kivi: "bits=2", dimension: 64),
        Case(think: "keys=0.4,restore=mean", kivi: "bits=4", dimension: 80, type: .bfloat16),
        Case(
            think: "keys=0.3,restore=mean",
            kivi: "keys=8,values=2,group=64,residual=64",
            dimension: 20,
            type: .float32
        ),
        Case(think: "keys=0.999999", kivi: "bits=8,residual=0", dimension: 16),
        Case(think: "keys=0", kivi: "bits=2,group=128", dimension: 16),
    ]

    @Test("quantizes the kept channels as kivi alone does, others are zero or their mean", arguments: cases)
    func equalsSteps(_ test: Case) async throws {
        var shape = TestCache()
        (shape.headDimension, shape.tokens, shape.elementType) = (test.dimension, 300, test.type)
        let source = try shape.makeQuickly()
        let composed = try await CompressedCache(
            compressing: source,
            recipe: Recipe("think(\(test.think))+kivi(\(test.kivi))")
        )
        let pruned = try await CompressedCache(compressing: source, recipe: Recipe("think(\(test.think))"))
        // Windows of the same length, so that the same tokens are in blocks.
        var quantized = try await CompressedCache(compressing: source, recipe: Recipe("kivi(\(test.kivi))"))
        let blocks = composed.blockTokenCount
        #expect(blocks <= quantized.blockTokenCount)
        #expect(blocks > 0)
        try quantized.truncate(to: blocks)
        for (index, layer) in composed.layers.enumerated() {
            let kivi = try quantized.layers[index].decompress(rows: 0..<blocks, as: test.type)
            let restored = try layer.decompress(rows: 0..<300, as: test.type)
            let original = source.layers[index]
            var keys = kivi.keys.numbers
            for (head, plan) in layer.plan.heads.enumerated() {
                let mask = pruned.layers[index].plan.heads[head].keepMask
                #expect(plan.keepMask == mask)
                #expect(plan.keyMeans == pruned.layers[index].plan.heads[head].keyMeans)
                let channels = mask.indices.filter { !mask[$0] }
                for (place, channel) in channels.enumerated() {
                    for token in 0..<blocks {
                        keys[(head * blocks + token) * test.dimension + channel] =
                            test.asMean ? plan.keyMeans[place] : 0
                    }
                }
            }
            let expected = KVTensor(keys, elementType: test.type, heads: 2, headDimension: test.dimension)
            #expect(restored.keys[tokens: 0..<blocks].hasSameBits(as: expected))
            #expect(restored.values[tokens: 0..<blocks].hasSameBits(as: kivi.values))
            // The window has every channel.
            #expect(restored.keys[tokens: blocks..<300].hasSameBits(as: original.keys[tokens: blocks..<300]))
            #expect(restored.values[tokens: blocks..<300].hasSameBits(as: original.values[tokens: blocks..<300]))
        }
    }

    @Test(
        "packs the kept channels with the codes, scales and minima of kivi alone",
        arguments: [2, 4, 8],
        [20, 64, 80]
    )
    func hasTheSameCodes(bits: Int, dimension: Int) async throws {
        var shape = TestCache()
        (shape.layers, shape.headDimension, shape.tokens) = (1, dimension, 80)
        let source = try shape.makeQuickly()
        let kivi = "kivi(bits=\(bits),residual=32)"
        let composed = try await CompressedCache(compressing: source, recipe: Recipe("think(keys=0.4)+\(kivi)")).layers[
            0
        ]
        let alone = try await CompressedCache(compressing: source, recipe: Recipe(kivi)).layers[0]
        #expect(composed.extent.blocks.count == 1)
        for head in 0..<2 {
            let left = PackedBlock(layer: composed, block: 0, head: head, bits: bits)
            let right = PackedBlock(layer: alone, block: 0, head: head, bits: bits)
            for (place, channel) in composed.plan.heads[head].keyRuns[0].channels.enumerated() {
                for token in 0..<32 { #expect(left.key(token, place) == right.key(token, Int(channel))) }
            }
            for token in 0..<32 {
                for channel in 0..<dimension { #expect(left.value(token, channel) == right.value(token, channel)) }
            }
        }
    }

    @Test("keeps the bytes of kept channels in full precision", arguments: ElementType.allCases)
    func prunesFullPrecision(type: ElementType) async throws {
        var shape = TestCache()
        (shape.layers, shape.headDimension, shape.tokens, shape.elementType) = (1, 20, 70, type)
        let source = try shape.makeQuickly()
        let codec = type.codecName
        let named = try await CompressedCache(compressing: source, recipe: Recipe("think(keys=0.4)+\(codec)")).layers[0]
        let unnamed = try await CompressedCache(compressing: source, recipe: Recipe("think(keys=0.4)")).layers[0]
        #expect(CacheContent(named).difference(from: CacheContent(unnamed)) == nil)
        let keys = source.layers[0].keys[tokens: 0..<32].numbers
        for head in 0..<2 {
            let columns = named.plan.heads[head].keyRuns[0].channels.flatMap { channel in
                (0..<32).map { keys[(head * 32 + $0) * 20 + Int(channel)] }
            }
            let packed = KVTensor(columns, elementType: type, heads: 1, headDimension: 1).packedBytes
            #expect(Array(named.block(0, head: head).array.prefix(packed.count)) == packed)
        }
    }

    /// A key that quantization can't take, in a channel that is pruned: what is done must not depend on how the token
    /// came, since the bytes must not.
    @Test("treats a large key of a pruned channel alike in blocks and in the window", arguments: [0, 31, 32, 63])
    func largeKeyOfPrunedChannel(token: Int) async throws {
        var keys = [Float](repeating: 1, count: 64 * 4)
        keys[token * 4 + 3] = 100_000
        let ones = [Float](repeating: 1, count: 64 * 4)
        let layer = KVCacheLayer(
            keys: KVTensor(keys, elementType: .float32, heads: 1, headDimension: 4),
            values: KVTensor(ones, elementType: .float32, heads: 1, headDimension: 4),
            profile: LayerProfile(meanSquaredQueries: [1, 1, 1, 0])
        )
        let source = try KVCache(layers: [layer])
        let recipe = try Recipe("think(keys=0.25,recent=0)+kivi(bits=2,residual=32)")
        // Formats/kivi.md, "Quantizing a group": pruned channels are not looked at.
        let compressed = try await CompressedCache(compressing: source, recipe: recipe)
        #expect(try compressed.layers[0].decompress(rows: 0..<32, as: .float32).keys.numbers[3] == 0)
    }
}
