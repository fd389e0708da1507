import TestSupport
import Testing
import ThinkCompress

@Suite struct FullPrecisionCodecTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let type: ElementType
        let dimension: Int
        let tokens: Int
        var testDescription: String { "\(type.name), dimension \(dimension), \(tokens) tokens" }
    }

    static let cases = ElementType.allCases.flatMap { type in
        [1, 16, 64, 80, 96, 128, 256].flatMap { dimension in
            [1, 31, 32, 33, 255, 256, 257, 300].map { Case(type: type, dimension: dimension, tokens: $0) }
        }
    }

    /// Numbers that arithmetic would change: NaNs with payloads, quiet and signalling, infinities, zeros, subnormals.
    static func specials(_ type: ElementType) -> [UInt32] {
        switch type {
        case .float16: [0x7E00, 0x7C01, 0xFDAB, 0x7C00, 0xFC00, 0x8000, 0x0000, 0x0001, 0x83FF, 0x7BFF]
        case .bfloat16: [0x7FC0, 0x7F81, 0xFFAB, 0x7F80, 0xFF80, 0x8000, 0x0000, 0x0001, 0x807F, 0x7F7F]
        case .float32:
            [
                0x7FC0_0000, 0x7F80_0001, 0xFFAB_CDEF, 0x7F80_0000, 0xFF80_0000, 0x8000_0000, 0, 1, 0x807F_FFFF,
                0x7F7F_FFFF,
            ]
        }
    }

    /// Bits of any kind, beginning with the special numbers.
    private static func bits(_ test: Case, using generator: inout SplitMix64) -> KVTensor {
        let count = 2 * test.tokens * test.dimension * test.type.byteCount
        var bytes = specials(test.type).flatMap { special in
            (0..<test.type.byteCount).map { UInt8(truncatingIfNeeded: special >> UInt32(8 * $0)) }
        }
        while bytes.count < count {
            withUnsafeBytes(of: generator.next()) { bytes.append(contentsOf: $0) }
        }
        return KVTensor(
            bytes: SharedBytes(Array(bytes.prefix(count))),
            elementType: test.type,
            heads: 2,
            tokens: test.tokens,
            headDimension: test.dimension
        )
    }

    @Test("gives back every bit", arguments: cases)
    func isLossless(_ test: Case) async throws {
        var generator = SplitMix64(seed: UInt64(test.dimension * 1000 + test.tokens))
        let keys = Self.bits(test, using: &generator)
        let values = Self.bits(test, using: &generator)
        let cache = try KVCache(layers: [KVCacheLayer(keys: keys, values: values)])
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe(test.type.codecName))
        #expect(compressed.tokenCount == test.tokens)
        #expect(compressed.blockTokenCount == test.tokens / 32 * 32)
        let restored = try compressed.layers[0].decompress(rows: 0..<test.tokens, as: test.type)
        #expect(restored.keys.bytes.hasSameBytes(as: keys.bytes))
        #expect(restored.values.bytes.hasSameBytes(as: values.bytes))
    }

    @Test(
        "lays keys channel by channel and values token by token, each padded to 64 bytes",
        arguments: ElementType.allCases
    )
    func layout(type: ElementType) async throws {
        let dimension = 3
        let keys = KVTensor((0..<96).map { Float($0) }, elementType: type, heads: 1, headDimension: dimension)
        let values = KVTensor((0..<96).map { Float($0 + 100) }, elementType: type, heads: 1, headDimension: dimension)
        let cache = try KVCache(layers: [KVCacheLayer(keys: keys, values: values)])
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe(type.codecName))
        let columns = (0..<3).flatMap { channel in (0..<32).map { Float($0 * dimension + channel) } }
        let part = KVTensor(columns, elementType: type, heads: 1, headDimension: 1).packedBytes
        // 3 * 32 elements of 2 or 4 bytes are a multiple of 64: nothing is padded.
        #expect(compressed.layers[0].block(0, head: 0).array == part + values.packedBytes)
    }

    static let otherTypes = ElementType.allCases.flatMap { recipe in
        ElementType.allCases.filter { $0 != recipe }.map { (recipe, $0) }
    }

    @Test("takes only caches of its own type and says which codec to use", arguments: otherTypes)
    func refusesOtherTypes(recipe: ElementType, type: ElementType) async throws {
        var test = TestCache()
        (test.tokens, test.elementType) = (40, type)
        let cache = try test.makeQuickly()
        let error = CodecError(
            .elementTypeMismatch,
            "the recipe stores \(recipe.name) and the cache is \(type.name), which is never converted; "
                + "use the codec \(type.codecName)"
        )
        await #expect(throws: error) {
            try await CompressedCache(compressing: cache, recipe: Recipe(recipe.codecName))
        }
        await #expect(throws: error) {
            try await CompressedCache(compressing: cache, recipe: Recipe("think(keys=0.5)+\(recipe.codecName)"))
        }
    }
}
