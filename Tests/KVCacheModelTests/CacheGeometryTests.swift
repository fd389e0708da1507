import TestSupport
import Testing
import ThinkCompress

@Suite struct CacheGeometryTests {
    @Test("takes the smallest and the largest of what a snapshot can say")
    func takesLimits() throws {
        let smallest = try CacheGeometry(layers: 1, kvHeads: 1, headDimension: 1)
        #expect(smallest.queryHeads == 0)
        #expect(smallest.valueCount(tokens: 3) == 6)
        let largest = try CacheGeometry(layers: 4096, queryHeads: 65536, kvHeads: 1024, headDimension: 1024)
        #expect(largest.valueCount(tokens: 2) == 4 * 4096 * 1024 * 1024)
        #expect(CacheGeometry.Limits.tokens == 1...2_147_483_647)
    }

    struct Refusal: Sendable, CustomTestStringConvertible {
        var layers = 1
        var queryHeads = 0
        var kvHeads = 1
        var headDimension = 1
        let message: String
        var testDescription: String { message }
    }

    @Test(
        "refuses others and says what they must be",
        arguments: [
            Refusal(layers: 0, message: "the number of layers is 0, must be 1...4096"),
            Refusal(layers: 4097, message: "the number of layers is 4097, must be 1...4096"),
            Refusal(kvHeads: 0, message: "the number of KV heads is 0, must be 1...1024"),
            Refusal(kvHeads: 1025, message: "the number of KV heads is 1025, must be 1...1024"),
            Refusal(queryHeads: -1, message: "the number of query heads is -1, must be 0...65536"),
            Refusal(queryHeads: 65537, message: "the number of query heads is 65537, must be 0...65536"),
            Refusal(headDimension: 0, message: "the head dimension is 0, must be 1...1024"),
            Refusal(headDimension: 1025, message: "the head dimension is 1025, must be 1...1024"),
            Refusal(queryHeads: 7, kvHeads: 2, message: "7 query heads can't share 2 KV heads evenly"),
            Refusal(queryHeads: 1, kvHeads: 2, message: "1 query heads can't share 2 KV heads evenly"),
        ]
    )
    func refuses(_ refusal: Refusal) {
        #expect(throws: KVCacheError(.invalidGeometry, refusal.message)) {
            try CacheGeometry(
                layers: refusal.layers,
                queryHeads: refusal.queryHeads,
                kvHeads: refusal.kvHeads,
                headDimension: refusal.headDimension
            )
        }
    }
}
