import TestSupport
import Testing
import ThinkCompress

@Suite("Attention over caches of models and of the papers' code")
struct RealCacheTests {
    /// Layers of the fixtures that have keys, values and queries.
    static func layer(_ file: String, _ index: Int) throws -> KVCacheLayer {
        try CacheDump.read(path: ProjectFiles.fixture("\(file).safetensors")).layers[index]
    }

    static let layers = [
        ("postgres-2048", 0), ("postgres-2048", 3), ("reference-a", 0), ("reference-a", 1), ("reference-b", 0),
    ]

    @Test("agrees with float64 attention over what is restored", arguments: layers)
    func agrees(file: String, index: Int) async throws {
        let source = try Self.layer(file, index)
        for recipe in ["f16", "kivi(bits=2,residual=32)", "think(keys=0.4)+kivi(bits=2,residual=32)", "kivi(bits=4)"] {
            let recipe = recipe == "f16" ? source.keys.elementType.fullPrecisionRecipe : recipe
            let sample = try await AttentionSample(recipe: recipe, source: source)
            #expect(try sample.error(Attention(precision: .precise)) < Tolerance.precise, "\(recipe)")
        }
    }

    @Test("adds, in fast mode, less than a tenth to the error that 2 bits have", arguments: layers)
    func fastModeIsHidden(file: String, index: Int) async throws {
        let source = try Self.layer(file, index)
        for recipe in ["kivi(bits=2,residual=32)", "think(keys=0.4)+kivi(bits=2,residual=32)"] {
            let sample = try await AttentionSample(recipe: recipe, source: source)
            let attention = Attention(precision: .fast)
            let output = try sample.output(attention)
            let restored = try sample.layer.decompress(rows: 0..<sample.layer.tokenCount, as: .float32)
            let arithmetic = sample.error(output, over: restored, attention: attention)
            let exact = sample.error(
                try sample.output(Attention(precision: .precise)),
                over: source,
                attention: attention
            )
            #expect(arithmetic < Tolerance.fast, "\(recipe)")
            #expect(arithmetic < exact / 10, "\(recipe): \(arithmetic) of \(exact)")
        }
    }

    @Test("is fast by itself where codes hide it tenfold, and precise elsewhere", arguments: layers)
    func automaticModeIsHidden(file: String, index: Int) async throws {
        let source = try Self.layer(file, index)
        let soft = "think(bits=2.5,recent=32)+kivi(bits=3,residual=32,ranges=fitted,scales=compact,rotate=values)"
        let coarse = ["kivi(keys=8,values=2,residual=32)", "kivi(bits=3,residual=32)", soft]
        for recipe in coarse {
            let sample = try await AttentionSample(recipe: recipe, source: source)
            let exact = try sample.output(Attention(precision: .precise))
            let own = sample.error(exact, over: source, attention: Attention())
            let arithmetic = try sample.error(Attention())
            #expect(try sample.output(Attention()) == sample.output(Attention(precision: .fast)), "\(recipe)")
            #expect(arithmetic < own / 10, "\(recipe): \(arithmetic) of \(own)")
        }
        for recipe in ["think(keys=0.4)+kivi(bits=4,residual=32)", "kivi(keys=8,values=3,residual=32)"] {
            let sample = try await AttentionSample(recipe: recipe, source: source)
            #expect(try sample.error(Attention()) < Tolerance.precise, "\(recipe)")
        }
    }
}
