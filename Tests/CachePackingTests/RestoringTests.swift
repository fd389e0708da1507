import TestSupport
import Testing
import ThinkCompress

/// Decompressing ranges of a `CompressedLayer`.
@Suite struct RestoringTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let recipe: String
        var type = ElementType.float16
        var testDescription: String { recipe }
    }

    static let tokens = 620
    static let cases = [
        Case(recipe: "f16"), Case(recipe: "bf16", type: .bfloat16), Case(recipe: "f32", type: .float32),
        Case(recipe: "kivi(bits=2,residual=32)"), Case(recipe: "kivi(keys=8,values=4,group=128)", type: .float32),
        Case(recipe: "think(keys=0.5,restore=mean)+kivi(bits=4)", type: .bfloat16),
        Case(recipe: "think(keys=0.5)+f16"),
        Case(recipe: "think(keys=0.5,values=0.3)+f16"),
    ]

    private func layer(_ test: Case) async throws -> CompressedLayer {
        var shape = TestCache()
        (shape.layers, shape.headDimension, shape.tokens) = (1, 18, Self.tokens)
        (shape.window, shape.elementType) = (8, test.type)
        return try await CompressedCache(compressing: shape.makeQuickly(), recipe: Recipe(test.recipe)).layers[0]
    }

    @Test("restores any range as the slice of the whole", arguments: cases, ElementType.allCases)
    func restoresRanges(_ test: Case, type: ElementType) async throws {
        let layer = try await layer(test)
        let whole = try layer.decompress(rows: 0..<Self.tokens, as: type)
        var generator = SplitMix64(seed: 1)
        var ranges = [0..<0, Self.tokens..<Self.tokens, 256..<256, 255..<257, 31..<33, 0..<1, 511..<513, 32..<256]
        ranges.append(layer.blockTokenCount - 1..<layer.blockTokenCount + 1)
        ranges.append(layer.blockTokenCount..<Self.tokens)
        for _ in 0..<20 {
            let bounds = [0, 1].map { _ in Int.random(in: 0...Self.tokens, using: &generator) }.sorted()
            ranges.append(bounds[0]..<bounds[1])
        }
        for range in ranges {
            let part = try layer.decompress(rows: range, as: type)
            #expect(part.keys.tokens == range.count)
            #expect(part.keys.elementType == type)
            #expect(part.keys.hasSameBits(as: whole.keys[tokens: range]), "keys \(range)")
            #expect(part.values.hasSameBits(as: whole.values[tokens: range]), "values \(range)")
        }
    }

    @Test("rounds what it restores to the type that is asked for", arguments: cases, ElementType.allCases)
    func rounds(_ test: Case, type: ElementType) async throws {
        let layer = try await layer(test)
        let exact = try layer.decompress(rows: 0..<Self.tokens, as: .float32)
        let rounded = try layer.decompress(rows: 0..<Self.tokens, as: type)
        for part in CachePart.allCases {
            let expected = KVTensor(exact[part].numbers, elementType: type, heads: 2, headDimension: 18)
            #expect(rounded[part].hasSameBits(as: expected))
        }
    }

    @Test("refuses tokens outside of the cache", arguments: [-1..<1, 619..<621])
    func refusesOutside(range: Range<Int>) async {
        let end = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) { [range] in
            let layer = try await RestoringTests().layer(RestoringTests.cases[0])
            _ = try layer.decompress(rows: range, as: .float16)
        }
        #expect(ProgramEnd.says("rows outside of the layer", end?.standardErrorContent))
    }
}
