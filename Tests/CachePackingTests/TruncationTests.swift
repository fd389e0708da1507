import TestSupport
import Testing
import ThinkCompress

/// Truncating a `CompressedCache` at any token, and appending from there.
@Suite struct TruncationTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let recipe: String
        var type = ElementType.float16
        var testDescription: String { recipe }
    }

    static let tokens = 140
    static let cases = [
        Case(recipe: "f16"), Case(recipe: "kivi(bits=2,residual=32)"),
        Case(recipe: "kivi(keys=4,values=8,group=64,residual=0)", type: .float32),
        Case(recipe: "think(keys=0.4,restore=mean)+kivi(bits=4,residual=0)", type: .bfloat16),
        Case(recipe: "think(keys=0.4,recent=0)+f32", type: .float32),
        Case(recipe: "think(keys=0.4,values=0.3,restore=mean)+kivi(bits=4,residual=0)"),
    ]

    private func make(_ test: Case) throws -> KVCache {
        var shape = TestCache()
        (shape.layers, shape.headDimension, shape.tokens) = (1, 12, Self.tokens)
        (shape.window, shape.elementType) = (4, test.type)
        return try shape.makeQuickly()
    }

    @Test("keeps the first tokens as they were, and goes on from there", arguments: cases, 0...tokens)
    func truncates(_ test: Case, count: Int) async throws {
        let source = try make(test)
        let whole = try await CompressedCache(compressing: source, recipe: Recipe(test.recipe))
        let content = CacheContent(whole)
        let restored = try whole.layers[0].decompress(rows: 0..<Self.tokens, as: test.type)
        var cache = whole
        try cache.truncate(to: count)
        #expect(cache.tokenCount == count)
        #expect(cache.tokens == source.tokens.map { Array($0.prefix(count)) })
        let length = cache.shape.blockLength
        #expect(cache.blockTokenCount == min(whole.blockTokenCount, count / length * length))
        try check(cache, first: count, of: restored)
        try checkBlocks(cache, equal: whole, before: count)

        try cache.append(
            source.layers(tokens: count..<Self.tokens),
            tokens: source.tokens.map { Array($0[count...]) }
        )
        #expect(cache.tokenCount == Self.tokens)
        #expect(cache.blockTokenCount == whole.blockTokenCount)
        try checkBlocks(cache, equal: whole, before: count)
        // What was in no cut block is as if nothing had happened; in full precision so is the rest.
        let isCut = count < whole.blockTokenCount && count % length != 0
        if !isCut || test.recipe == "f16" { #expect(CacheContent(cache).difference(from: content) == nil) }
        #expect(CacheContent(whole).difference(from: content) == nil)
    }

    /// The cache restores its tokens as `restored` has them, in every bit.
    private func check(_ cache: CompressedCache, first count: Int, of restored: KVCacheLayer) throws {
        let rest = try cache.layers[0].decompress(rows: 0..<count, as: cache.shape.elementType)
        #expect(rest.keys.hasSameBits(as: restored.keys[tokens: 0..<count]))
        #expect(rest.values.hasSameBits(as: restored.values[tokens: 0..<count]))
    }

    /// Whole blocks before the cut have the same bytes.
    private func checkBlocks(_ cache: CompressedCache, equal whole: CompressedCache, before count: Int) throws {
        for head in 0..<cache.geometry.layers[0].kvHeads {
            for block in 0..<min(count, whole.blockTokenCount) / cache.shape.blockLength {
                let bytes = cache.layers[0].block(block, head: head)
                #expect(bytes.hasSameBytes(as: whole.layers[0].block(block, head: head)))
            }
        }
    }

    @Test("cuts caches of several pages and layers, again and again", arguments: cases, [UInt64(1), 2])
    func truncatesAgain(_ test: Case, seed: UInt64) async throws {
        var shape = TestCache()
        (shape.headDimension, shape.tokens, shape.window, shape.elementType) = (12, 700, 4, test.type)
        let source = try shape.makeQuickly()
        let whole = try await CompressedCache(compressing: source, recipe: Recipe(test.recipe))
        let restored = try whole.layers.map { try $0.decompress(rows: 0..<700, as: test.type) }
        var cache = whole
        var generator = SplitMix64(seed: seed)
        while cache.tokenCount > 0 {
            try cache.truncate(to: Int.random(in: 0..<cache.tokenCount, using: &generator))
            let count = cache.tokenCount
            for (layer, expected) in zip(cache.layers, restored) {
                let rest = try layer.decompress(rows: 0..<count, as: test.type)
                #expect(rest.keys.hasSameBits(as: expected.keys[tokens: 0..<count]))
                #expect(rest.values.hasSameBits(as: expected.values[tokens: 0..<count]))
            }
        }
    }

    @Test("fills an empty cache anew", arguments: cases)
    func truncatesToNothing(_ test: Case) async throws {
        let source = try make(test)
        let whole = try await CompressedCache(compressing: source, recipe: Recipe(test.recipe))
        var cache = whole
        try cache.truncate(to: 0)
        #expect(cache.tokenCount == 0)
        #expect(cache.layers[0].residualWindow == nil)
        #expect(cache.blockByteCount == 0)
        #expect(cache.fullPrecisionByteCount == 0)
        for token in 0..<Self.tokens {
            try cache.append(source.layers(tokens: token..<token + 1), tokens: source.tokens.map { [$0[token]] })
        }
        #expect(CacheContent(cache).difference(from: CacheContent(whole)) == nil)
    }

    @Test("refuses a count outside of the tokens", arguments: [-1, tokens + 1])
    func refusesOutside(count: Int) async {
        let end = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) { [count] in
            var cache = try await CompressedCache(
                compressing: TestCache().makeQuickly().prefix(140),
                recipe: Recipe("f16")
            )
            try cache.truncate(to: count)
        }
        #expect(ProgramEnd.says("a cache is truncated to some of its tokens", end?.standardErrorContent))
    }
}
