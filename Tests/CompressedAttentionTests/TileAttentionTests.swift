import TestSupport
import Testing
import ThinkCompress

@testable import CompressedAttention

@Suite struct TileAttentionTests {
    /// How far float32 sums may be from the exact ones, for outputs of size about 1.
    static let singlePrecision = 4e-6
    /// The relative error that rounding to float16 makes of the fixture: its attention was computed before queries,
    /// keys and values were rounded, and was rounded itself. One token too many or too few makes a hundred times more.
    static let halfPrecision = 1e-3

    /// Attention of a KV head's query heads over a whole layer, in tiles.
    private static func attend(_ layer: KVCacheLayer, head: Int, tile: Int) throws -> [Float] {
        let queries = try #require(layer.queries)
        let dimension = layer.keys.headDimension
        let group = queries.heads / layer.keys.heads
        let headSize = queries.tokens * dimension
        let rows = Array(queries.numbers[head * group * headSize..<(head + 1) * group * headSize])
        let (keys, values) = (layer.keys.numbers, layer.values.numbers)
        let attention = try TileAttention(queries: rows, keyDimension: dimension, valueDimension: dimension)
        let tokens = layer.keys.tokens
        for start in stride(from: 0, to: tokens, by: tile) {
            let count = min(tile, tokens - start)
            let range = (head * tokens + start) * dimension..<(head * tokens + start + count) * dimension
            let visible = (0..<group * queries.tokens).map { row in
                0..<min(max(tokens - queries.tokens + row % queries.tokens + 1 - start, 0), count)
            }
            attention.add(keys: Array(keys[range]), values: Array(values[range]), count: count, visible: visible)
        }
        return attention.result
    }

    @Test("gives the attention output that the model's own code gave", arguments: 0..<4)
    func agreesWithModel(index: Int) throws {
        let path = ProjectFiles.fixture("postgres-2048.safetensors")
        let cache = try CacheDump.read(path: path)
        let tensor = try #require(SafetensorsFile(MappedFile.bytes(path: path)).tensors["layers.\(index).attention"])
        #expect(tensor.shape == [1, 8, 32, 64])
        let expected = KVTensor(
            bytes: tensor.bytes,
            elementType: try #require(ElementType(name: tensor.elementType)),
            heads: 8,
            tokens: 32,
            headDimension: 64
        ).numbers
        let layer = cache.layers[index]
        let output = try (0..<layer.keys.heads).flatMap { try Self.attend(layer, head: $0, tile: 256) }
        #expect(output.count == expected.count)
        var (difference, size) = (0.0, 0.0)
        for (ours, theirs) in zip(output, expected) {
            difference += Double(ours - theirs) * Double(ours - theirs)
            size += Double(theirs) * Double(theirs)
        }
        #expect((difference / size).squareRoot() < Self.halfPrecision)
    }

    @Test("doesn't depend on the tiles, and agrees with attention in float64", arguments: [1, 7, 32, 40, 100])
    func doesNotDependOnTiles(tile: Int) throws {
        var shape = TestCache()
        (shape.layers, shape.queryHeads, shape.headDimension, shape.tokens, shape.window) = (1, 6, 12, 40, 9)
        shape.elementType = .float32
        let layer = try shape.makeQuickly().layers[0]
        let expected = ReferenceAttention(try #require(layer.queries), over: [layer]).output
        let output = try (0..<2).flatMap { try Self.attend(layer, head: $0, tile: tile) }
        #expect(output.count == expected.count)
        for (ours, exact) in zip(output, expected) { #expect(abs(Double(ours) - exact) < Self.singlePrecision) }
    }

    @Test("gives the value itself where only one token is seen")
    func oneToken() throws {
        let attention = try TileAttention(queries: [3, -2], keyDimension: 2, valueDimension: 2)
        attention.add(keys: [1, 1, 9, 9], values: [0.5, -7, 100, 100], count: 2, visible: [0..<1])
        attention.add(keys: [9, 9], values: [100, 100], count: 1, visible: [0..<0])
        #expect(attention.result == [0.5, -7])
    }

    @Test("takes keys and values of different dimensions", arguments: [(2, 17), (17, 2), (4, 3)])
    func dimensions(keys: Int, values: Int) throws {
        // Of three tokens with equal keys the values' mean; the fourth has a key that nobody looks for.
        let attention = try TileAttention(
            queries: [Float](repeating: 1, count: 2 * keys),
            keyDimension: keys,
            valueDimension: values
        )
        let tileKeys = [Float](repeating: 1, count: 3 * keys) + [Float](repeating: -300, count: keys)
        let tileValues = (0..<4 * values).map { Float($0 % values + 3 * ($0 / values)) }
        attention.add(keys: tileKeys, values: tileValues, count: 4, visible: [0..<4, 1..<2])
        #expect(attention.result.count == 2 * values)
        for (index, value) in attention.result.enumerated() {
            #expect(abs(value - Float(index % values + 3)) < 1e-5, "number \(index)")
        }
    }

    @Test("leaves out tokens that a sliding window has left behind")
    func windowed() throws {
        let attention = try TileAttention(queries: [1, 1], keyDimension: 1, valueDimension: 1)
        attention.add(keys: [5, 5], values: [2, 6], count: 2, visible: [0..<2, 1..<2])
        #expect(attention.result == [4, 6])
    }

    @Test("skips tiles of which a row sees nothing yet")
    func firstTilesUnseen() throws {
        // Row 1 sees nothing at first; its output must not be disturbed by what comes before.
        let attention = try TileAttention(queries: [1, 1], keyDimension: 1, valueDimension: 1)
        attention.add(keys: [5], values: [2], count: 1, visible: [0..<1, 0..<0])
        attention.add(keys: [5], values: [4], count: 1, visible: [0..<1, 0..<1])
        #expect(attention.result == [3, 4])
    }

    @Test("stays finite for scores far beyond what exponentials take")
    func largeScores() throws {
        let attention = try TileAttention(queries: [100], keyDimension: 1, valueDimension: 1)
        attention.add(keys: [-50, 60], values: [1, 2], count: 2, visible: [0..<2])
        attention.add(keys: [61, -61], values: [3, 4], count: 2, visible: [0..<2])
        #expect(attention.result == [3])
        #expect(attention.scores.count == 2 && abs(attention.scores[0] / 1.442695 - 6100) < 0.01)
    }
}
