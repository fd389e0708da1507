import TestSupport
import Testing
import ThinkCompress

@Suite struct KeyDiffCodecTests {
    /// The rows that KeyDiff keeps, by its formulas: cosine similarity to the mean of the normalized keys.
    private static func kept(
        _ sample: SelectionSample,
        count: Int,
        recent: Int,
        kernel: Int = 7
    ) throws -> [[Int]] {
        let (keys, d) = (try sample.layer().keys.numbers, sample.dimension)
        func length(_ row: [Double]) -> Double { row.map { $0 * $0 }.reduce(0, +).squareRoot() }
        return (0..<sample.kvHeads).map { head in
            let rows = (head * sample.rows..<(head + 1) * sample.rows).map {
                keys[$0 * d..<($0 + 1) * d].map(Double.init)
            }
            let anchor = (0..<d).map { channel in
                rows.map { $0[channel] / length($0) }.reduce(0, +) / Double(rows.count)
            }
            let scores = rows.map { row in
                -zip(row, anchor).map { $0 * $1 }.reduce(0, +) / (length(row) * length(anchor))
            }
            let older = sample.rows - recent
            let pooled = (0..<older).map { row in
                (row - kernel / 2...row + kernel / 2).filter { (0..<older).contains($0) }.map { scores[$0] }
                    .reduce(0, +)
            }
            return SelectionSample.highest(pooled, count: count - recent)
                + Array(older..<sample.rows)
        }
    }

    @Test(
        "keeps the tokens that a plain implementation of the paper keeps",
        arguments: [
            SelectionSample(), SelectionSample(seed: 9, type: .float16, window: 1), SelectionSample(type: .bfloat16),
            SelectionSample(held: .last, tokenCount: 300), SelectionSample(held: .listed, tokenCount: 300),
            SelectionSample(queryHeads: 3, kvHeads: 3, dimension: 5),
        ],
        [0, 32]
    )
    func agreesWithPlain(_ sample: SelectionSample, recent: Int) async throws {
        let tokens = SelectionSample.tokens(try sample.layer(), of: sample.tokenCount)
        for kernel in [1, 3, 7] {
            let layer = try await sample.compressed("keydiff(keep=0.3,recent=\(recent),kernel=\(kernel))")
            let rows = try Self.kept(sample, count: 45, recent: recent, kernel: kernel)
            #expect(layer.held == .listed(zip(tokens, rows).map { tokens, rows in rows.map { UInt32(tokens[$0]) } }))
        }
    }

    @Test("keys of zeros are like none, and of equal ones the earlier stays")
    func zeros() async throws {
        // Every fourth row points against the others, and every fourth nowhere.
        let rows = (0..<16).flatMap { row -> [Float] in row % 4 == 1 ? [0, 0] : row % 4 == 2 ? [-1, -0.5] : [2, 1] }
        let keys = KVTensor(rows + rows.map { _ in 0 }, elementType: .float32, heads: 2, headDimension: 2)
        let cache = try KVCache(layers: [KVCacheLayer(keys: keys, values: keys)])
        let compressed = try await CompressedCache(
            compressing: cache,
            recipe: Recipe("keydiff(tokens=6,recent=0,kernel=1)")
        )
        #expect(compressed.layers[0].held == .listed([[1, 2, 5, 6, 10, 14], [0, 1, 2, 3, 4, 5]]))
    }

    @Test("needs no queries")
    func needsNoQueries() async throws {
        let sample = SelectionSample()
        let layer = try sample.layer()
        let cache = try KVCache(layers: [KVCacheLayer(keys: layer.keys, values: layer.values)])
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("keydiff(tokens=60)"))
        #expect(
            compressed.layers[0].held
                == .listed(try Self.kept(sample, count: 60, recent: 32).map { $0.map(UInt32.init) })
        )
        #expect(compressed.profile == nil)
    }

    @Test("refuses keys that are not finite, and says where")
    func notFinite() async throws {
        var numbers = [Float](repeating: 1, count: 40 * 4)
        numbers[11 * 4 + 3] = .nan
        let keys = KVTensor(numbers, elementType: .float32, heads: 1, headDimension: 4)
        let cache = try KVCache(layers: [KVCacheLayer(keys: keys, values: keys, held: .last)], tokenCount: 100)
        let error = await #expect(throws: CodecError.self) {
            try await CompressedCache(compressing: cache, recipe: Recipe("keydiff(keep=0.9)"))
        }
        #expect([error?.layer, error?.head, error?.token, error?.channel] == [0, 0, 71, 3])
    }

    @Test("reads its parameters, and writes those that are not the defaults")
    func text() throws {
        let stage = try #require(try Recipe("keydiff(keep=0.25)").steps[0].stage as? KeyDiffCodec)
        #expect(stage.recent == 32)
        #expect(try Recipe("keydiff(recent=32,tokens=64)").description == "keydiff(tokens=64)")
        #expect(try Recipe(KeyDiffCodec(kept: .share(0.5), recent: 0)).description == "keydiff(keep=0.5,recent=0)")
        let tooFew = RecipeError(
            "keydiff: tokens=8 must be at least recent=32, the newest tokens, which always stay",
            suggestion: "keydiff(tokens=8,recent=8)"
        )
        #expect(throws: tooFew) { try Recipe("keydiff(tokens=8)") }
        #expect(throws: RecipeError.self) { try Recipe("keydiff(keep=0)") }
    }
}
