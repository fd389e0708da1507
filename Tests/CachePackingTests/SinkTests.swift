import TestSupport
import Testing
import ThinkCompress

/// The first tokens in full precision beside the blocks, which hold stand-ins for them.
@Suite struct SinkTests {
    private static let shape = BlockShape(elementType: .float16, blockLength: 32, residualWindow: 20)

    private static func geometry() throws -> LayerGeometry {
        try LayerGeometry(kvHeads: 2, keyDimension: 9, valueDimension: 5)
    }

    /// Random rows; the first ones are of another magnitude.
    private static func source(tokens: Int, sinks: Int, outlier: Float) throws -> KVCacheLayer {
        var generator = SplitMix64(seed: 7)
        let rows = KVCacheLayer.random(try geometry(), elementType: .float16, rows: tokens, using: &generator)
        func scaled(_ tensor: KVTensor) -> KVTensor {
            let numbers = tensor.numbers.enumerated().map { index, number in
                index / tensor.headDimension % tokens < sinks ? number * outlier : number
            }
            return KVTensor(numbers, elementType: .float16, heads: tensor.heads, headDimension: tensor.headDimension)
        }
        return KVCacheLayer(keys: scaled(rows.keys), values: scaled(rows.values))
    }

    static let tokenCounts = [3, 40, 51, 52, 84, 116, 300]

    @Test("come back as they came, and spoil no group", arguments: [0, 4, 40, 64], tokenCounts)
    func outliers(sinks: Int, tokens: Int) throws {
        let plan = try LayerPlan.mixed(geometry: Self.geometry(), sinks: sinks, hasMeans: true, seed: 1)
        let source = try Self.source(tokens: tokens, sinks: sinks, outlier: 5000)
        let layer = try CompressedLayer(packing: source, by: plan, shape: Self.shape)
        let inBlocks = min(sinks, max(tokens - 20, 0) / 32 * 32)
        #expect(layer.sinkRows?.keys.tokens ?? 0 == inBlocks)
        #expect(layer.fullPrecisionByteCount == (inBlocks + layer.extent.windowRowCount) * 2 * 14 * 2)
        var model = LayerModel(plan: plan, shape: Self.shape)
        model.append(source)
        #expect(try model.difference(from: layer) == nil)

        // No byte of a block depends on what the sinks are.
        let plain = try CompressedLayer(
            packing: Self.source(tokens: tokens, sinks: sinks, outlier: -1),
            by: plan,
            shape: Self.shape
        )
        for block in layer.extent.blocks {
            for head in 0..<2 {
                #expect(layer.block(block, head: head).hasSameBytes(as: plain.block(block, head: head)))
            }
        }
    }

    @Test("that are a block's every token leave nothing in it")
    func standInsOfWholeBlocks() throws {
        let plan = try LayerPlan.mixed(geometry: Self.geometry(), sinks: 64, hasMeans: true, seed: 1)
        let source = try Self.source(tokens: 200, sinks: 64, outlier: 5000)
        let layer = try CompressedLayer(packing: source, by: plan, shape: Self.shape)
        for head in 0..<2 {
            #expect(layer.block(0, head: head).array.allSatisfy { $0 == 0 })
            #expect(layer.block(1, head: head).array.allSatisfy { $0 == 0 })
            #expect(layer.block(2, head: head).array.contains { $0 != 0 })
        }
    }

    @Test("come one by one as all at once, and are cut", arguments: [4, 40, 64])
    func oneByOne(sinks: Int) throws {
        let plan = try LayerPlan.mixed(geometry: Self.geometry(), sinks: sinks, hasMeans: false, seed: 2)
        let source = try Self.source(tokens: 150, sinks: sinks, outlier: 5000)
        let whole = CacheContent(try CompressedLayer(packing: source, by: plan, shape: Self.shape))
        var layer = CompressedLayer(shape: Self.shape, index: 0, plan: plan)
        for token in 0..<150 {
            let row = source[rows: token..<token + 1]
            try layer.append(keys: row.keys, values: row.values)
        }
        #expect(CacheContent(layer).difference(from: whole) == nil)
        // What comes after a cut are other tokens.
        let others = try Self.source(tokens: 150, sinks: sinks, outlier: -2000)
        for count in (0..<150).reversed() {
            var model = LayerModel(plan: plan, shape: Self.shape)
            model.append(source)
            model.truncate(to: count)
            var cut = layer
            try cut.truncate(to: count)
            #expect(try model.difference(from: cut) == nil)
            #expect(cut.sinkRows?.keys.tokens ?? 0 == min(sinks, cut.extent.blockEnd))
            let rest = others[rows: count..<150]
            try cut.append(keys: rest.keys, values: rest.values)
            model.append(rest)
            #expect(try model.difference(from: cut) == nil)
        }
    }

    @Test("may be infinite, and the first token after them may not", arguments: [1, 4, 40])
    func infinities(sinks: Int) throws {
        let geometry = try Self.geometry()
        let coding = try Coding(width: 2)
        let head = try HeadPlan(
            keyRuns: [.init(coding, channels: (0..<9).map { $0 })],
            values: coding,
            geometry: geometry
        )
        let plan = LayerPlan(geometry: geometry, sinks: sinks, heads: [head, head])
        let source = try Self.source(tokens: 90, sinks: sinks, outlier: .infinity)
        let layer = try CompressedLayer(packing: source, by: plan, shape: Self.shape)
        let restored = try layer.decompress(rows: 0..<sinks, as: .float16)
        #expect(restored.keys.hasSameBits(as: source.keys[tokens: 0..<sinks]))
        #expect(restored.values.hasSameBits(as: source.values[tokens: 0..<sinks]))

        let fewer = LayerPlan(geometry: geometry, sinks: sinks - 1, heads: [head, head])
        let error = #expect(throws: CodecError.self) {
            try CompressedLayer(packing: source, by: fewer, shape: Self.shape, index: 2)
        }
        #expect(error?.code == .unsupportedValue)
        #expect(error?.layer == 2 && error?.head == 0 && error?.token == sinks - 1 && error?.channel == 0)
    }
}
