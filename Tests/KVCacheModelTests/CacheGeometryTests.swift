import TestSupport
import Testing
import ThinkCompress

@Suite struct CacheGeometryTests {
    @Test("takes the smallest and the largest of what a snapshot can say")
    func takesLimits() throws {
        let smallest = try CacheGeometry(layers: 1, kvHeads: 1, headDimension: 1)
        #expect(smallest.layers.map(\.queryHeads) == [0])
        #expect(smallest.layers[0].valuesPerToken == 2)
        let largest = try CacheGeometry(layers: 4096, queryHeads: 65536, kvHeads: 1024, headDimension: 1024)
        #expect(largest.layers.count == 4096)
        #expect(largest.layers[4095].valuesPerToken == 2 * 1024 * 1024)
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
            Refusal(headDimension: 0, message: "the key dimension is 0, must be 1...1024"),
            Refusal(headDimension: 1025, message: "the key dimension is 1025, must be 1...1024"),
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

    @Test("layers have shapes of their own, values none or other dimensions than keys")
    func ownShapes() throws {
        let sliding = try LayerGeometry(queryHeads: 8, kvHeads: 4, keyDimension: 64, valueDimension: 32)
        let latent = try LayerGeometry(kvHeads: 1, keyDimension: 576, valueDimension: 0)
        let geometry = try CacheGeometry([sliding, latent, .none])
        #expect(geometry.commonLayer == nil)
        #expect(geometry.layers.map(\.isEmpty) == [false, false, true])
        #expect(geometry.layers.map(\.valuesPerToken) == [4 * 96, 576, 0])
        #expect(sliding.dimension(.keys) == 64 && sliding.dimension(.values) == 32)
        #expect(try CacheGeometry([latent, latent]).commonLayer == latent)
        #expect(throws: KVCacheError(.invalidGeometry, "the value dimension is 1025, must be 0...1024")) {
            try LayerGeometry(kvHeads: 1, keyDimension: 1, valueDimension: 1025)
        }
    }

    @Test("names the first number that two shapes don't share")
    func mismatches() throws {
        let one = try CacheGeometry(layers: 2, queryHeads: 4, kvHeads: 2, headDimension: 64)
        #expect(one.mismatch(with: one) == nil)
        #expect(one.mismatch(with: try CacheGeometry(layers: 2, kvHeads: 2, headDimension: 64)) == nil)
        let longer = try CacheGeometry(layers: 3, queryHeads: 4, kvHeads: 2, headDimension: 64)
        #expect(one.mismatch(with: longer) == .init(name: "layers", left: "2", right: "3"))
        let other = try CacheGeometry([one.layers[0], LayerGeometry(kvHeads: 2, keyDimension: 64, valueDimension: 32)])
        #expect(one.mismatch(with: other) == .init(name: "value dimension of layer 1", left: "64", right: "32"))
    }
}
