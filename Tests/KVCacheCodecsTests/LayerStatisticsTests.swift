import TestSupport
import Testing
import ThinkCompress

/// What stages see of layers that hold some of the tokens: rows are counted, and tokens named.
@Suite struct LayerStatisticsTests {
    /// Ten tokens, of which each of two heads holds three.
    private static let held: [HeldTokens] = [.last, .listed([[0, 4, 9], [1, 2, 3]])]

    private static func statistics(held: HeldTokens, queries: [Float]? = nil, keys: [Float] = keys) throws
        -> LayerStatistics
    {
        let keys = KVTensor(keys, elementType: .float32, heads: 2, headDimension: 2)
        let queries = queries.map { KVTensor($0, elementType: .float32, heads: 2, headDimension: 2) }
        let source = KVCacheLayer(keys: keys, values: keys, held: held, queries: queries)
        return LayerStatistics(layer: 3, geometry: try source.geometry(), source: source, tokenCount: 10)
    }

    /// Two channels of each head's rows.
    private static let keys: [Float] = [1, 2, 3, 4, 5, 6] + [0, 8, 1, 8, 5, 8]

    @Test("means are over the rows that a head holds", arguments: held)
    func means(held: HeldTokens) throws {
        var statistics = try Self.statistics(held: held)
        #expect(statistics.rowCount == 3)
        #expect(statistics.held == held)
        #expect(try statistics.means(.keys, head: 0) == [3, 4])
        #expect(try statistics.means(.keys, head: 1) == [2, 8])
        #expect(try statistics.meanSquares(.keys, head: 0) == [35.0 / 3, 56.0 / 3])
        #expect(try statistics.meanSquares(.keys, head: 1) == [26.0 / 3, 64])
        #expect(try statistics.queryMeanSquares(head: 0, window: 2) == nil)
    }

    // More queries than rows, too: they are those of the cache's last tokens.
    @Test("the observation window counts queries, however few rows there are", arguments: held)
    func observationWindow(held: HeldTokens) throws {
        let queries = [Float](repeating: 100, count: 4) + [1, 2, 3, 4, 5, 6] + [Float](repeating: 3, count: 10)
        let statistics = try Self.statistics(held: held, queries: queries)
        #expect(try statistics.queryMeanSquares(head: 0, window: 1) == [25, 36])
        #expect(try statistics.queryMeanSquares(head: 0, window: 3) == [35.0 / 3, 56.0 / 3])
        #expect(try statistics.queryMeanSquares(head: 0, window: 9) == [20_035.0 / 5, 20_056.0 / 5])
        #expect(try statistics.queryMeanSquares(head: 1, window: 2) == [9, 9])
    }

    @Test("a key that is not finite is told by its token", arguments: zip(held, [9, 3]))
    func tokenOfKey(held: HeldTokens, token: Int) throws {
        var keys = Self.keys
        keys[11] = .infinity
        var statistics = try Self.statistics(held: held, keys: keys)
        #expect(try statistics.means(.keys, head: 0) == [3, 4])
        let message = "a key is inf; only full precision (f16, bf16, f32) takes such a cache"
        #expect(throws: CodecError(.unsupportedValue, layer: 3, head: 1, token: token, channel: 1, message)) {
            try statistics.means(.keys, head: 1)
        }
    }
}
