import TestSupport
import Testing
import ThinkCompress

/// Rows that no sliding window reaches any more are dropped, and nothing else changes.
@Suite struct DroppedRowsTests {
    static let recipes = [
        "f16", "kivi(bits=2,residual=32)", "kivi(bits=4,group=128,residual=0)", "think(bits=2.5,values=2.25)",
        "think(keys=0.4,values=0.3,restore=mean)+kivi(bits=4,residual=64,sinks=4)",
    ]

    private func source(_ tokens: Int) throws -> KVCache {
        var maker = TestCache()
        (maker.layers, maker.headDimension, maker.tokens) = (2, 32, tokens)
        return try maker.makeQuickly()
    }

    @Test("what stays restores, attends, grows and is saved as before", arguments: recipes)
    func stays(recipe: String) async throws {
        let all = try source(1300)
        let ids = try #require(all.tokens)
        let whole = try await CompressedCache(compressing: all.prefix(1000), recipe: Recipe(recipe))
        let restored = try whole.layers[1].decompress(rows: 0..<1000, as: .float32)
        let queries = try #require(all.layers[1].queries)[tokens: 0..<3]
        for count in [0, 1, 100, 255, 256, 257, 700, 744, 745, 999, 1000, 5000] {
            var cache = whole
            cache.dropRows(ofLayer: 1, keeping: count)
            let layer = cache.layers[1]
            let rows = layer.rowCount
            #expect(rows >= min(count, 1000))
            let blockEnd = whole.layers[1].extent.blockEnd
            #expect(layer.extent.first == min(max(1000 - count, 0), blockEnd) / 256 * 256)
            let rest = try layer.decompress(rows: 0..<rows, as: .float32)
            #expect(rest.keys.hasSameBits(as: restored.keys[tokens: 1000 - rows..<1000]))
            #expect(rest.values.hasSameBits(as: restored.values[tokens: 1000 - rows..<1000]))
            #expect(cache.layers[0].rowCount == 1000 && whole.layers[1].rowCount == 1000)
            if count > 3 {
                let attention = Attention(slidingWindow: count - 2)
                #expect(
                    try output(attention, queries, over: layer) == output(attention, queries, over: whole.layers[1])
                )
            }

            // As without dropping, so far as rows are there.
            var (grown, expected) = (cache, whole)
            for start in stride(from: 1000, to: 1300, by: 75) {
                let more = all.layers(tokens: start..<start + 75)
                try grown.append(more, tokens: Array(ids[start..<start + 75]))
                try expected.append(more, tokens: Array(ids[start..<start + 75]))
                grown.dropRows(ofLayer: 1, keeping: count)
            }
            let last = grown.layers[1].rowCount
            #expect(last < count + 256 + 256 || last == 1300)
            let now = try grown.layers[1].decompress(rows: 0..<last, as: .float32)
            let then = try expected.layers[1].decompress(rows: 1300 - last..<1300, as: .float32)
            #expect(now.keys.hasSameBits(as: then.keys) && now.values.hasSameBits(as: then.values))

            let folder = try TemporaryFolder()
            try await SnapshotWriter().write(grown, to: folder.file("a.tkv"))
            let reader = try SnapshotReader(path: folder.file("a.tkv"))
            try await reader.verify()
            let loaded = try await reader.cache()
            #expect(CacheContent(loaded).difference(from: CacheContent(grown)) == nil)
        }
    }

    private func output(_ attention: Attention, _ queries: KVTensor, over layer: CompressedLayer) throws -> [Float] {
        try AttentionSample(layer: layer, queries: queries).output(attention, threads: 1)
    }

    @Test("a cache that lacks rows is used whole, and listed rows stay")
    func wholeOnly() async throws {
        let all = try source(700)
        var cache = try await CompressedCache(compressing: all, recipe: Recipe("kivi(bits=2)"))
        cache.dropRows(ofLayer: 0, keeping: 200)
        #expect(throws: CodecError.self) { try cache.truncate(to: 690) }
        var listed = try await CompressedCache(compressing: all, recipe: Recipe("snapkv(keep=0.9)+kivi(bits=2)"))
        let rows = listed.layers[0].rowCount
        listed.dropRows(ofLayer: 0, keeping: 1)
        #expect(listed.layers[0].rowCount == rows)
    }
}
