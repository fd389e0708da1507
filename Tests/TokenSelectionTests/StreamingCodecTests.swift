import TestSupport
import Testing
import ThinkCompress

@Suite struct StreamingCodecTests {
    @Test(
        "keeps the first and the newest tokens of what a layer holds",
        arguments: [
            ("streaming(recent=20)", Array(0..<4) + Array(130..<150)),
            ("streaming(sinks=0,recent=1)", [149]), ("streaming(sinks=1,recent=2)", [0, 148, 149]),
            ("streaming(sinks=64,recent=85)", Array(0..<64) + Array(65..<150)),
        ]
    )
    func keepsEnds(recipe: String, rows: [Int]) async throws {
        for held in [SelectionSample.Held.all, .last, .listed] {
            var sample = SelectionSample(held: held)
            sample.tokenCount = held == .all ? 150 : 400
            let source = try sample.layer()
            let tokens = SelectionSample.tokens(source, of: sample.tokenCount)
            let layer = try await sample.compressed(recipe)
            #expect(layer.held == .listed(tokens.map { list in rows.map { UInt32(list[$0]) } }))
            let restored = try layer.decompress(rows: 0..<layer.rowCount, as: .float32)
            for part in CachePart.allCases {
                let numbers = source[part].numbers
                var expected: [Float] = []
                for row in rows + rows.map({ 150 + $0 }) { expected += numbers[row * 16..<row * 16 + 16] }
                #expect(restored[part].numbers == expected)
            }
        }
    }

    @Test(
        "keeps all of a layer that has no more",
        arguments: [("streaming", 150), ("streaming(sinks=0,recent=150)", 150)]
    )
    func keepsAll(recipe: String, rows: Int) async throws {
        #expect(try await SelectionSample().compressed(recipe).held == .all)
        let layer = try await SelectionSample(held: .last, tokenCount: 151).compressed(recipe)
        #expect(layer.held == .last)
        #expect(layer.rowCount == rows)
    }

    @Test("has the paper's sinks, and tells of nothing that it has anyway")
    func text() throws {
        let stage = try #require(try Recipe("streaming").steps[0].stage as? StreamingCodec)
        #expect(stage.sinks == 4)
        #expect(stage.recent == 1024)
        #expect(try Recipe("streaming(recent=1024,sinks=4)").description == "streaming")
        #expect(try Recipe(StreamingCodec(sinks: 0, recent: 64)).description == "streaming(sinks=0,recent=64)")
        #expect(
            throws: RecipeError(
                "streaming: recent=0 must be a whole number from 1 to 2147483647",
                suggestion: "recent=1"
            )
        ) {
            try StreamingCodec(recent: 0)
        }
        #expect(throws: RecipeError.self) { try Recipe("streaming(sinks=-1)") }
        #expect(throws: RecipeError.self) { try Recipe("streaming(keep=0.5)") }
    }
}
