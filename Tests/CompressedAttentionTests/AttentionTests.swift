import TestSupport
import Testing
import ThinkCompress

/// How far attention may be from float64 attention over the restored cache.
enum Tolerance {
    static let precise = KernelChoice.isScalar ? 1e-5 : 5e-4
    static let fast = KernelChoice.isScalar ? 1e-5 : 3.5e-2
}

@Suite("Attention over a compressed layer agrees with float64 attention over what it restores")
struct AttentionTests {
    static let recipes =
        [
            "f16", "think(keys=0.4)", "kivi(bits=2)", "kivi(bits=4)", "kivi(bits=8)", "kivi(keys=2,values=4)",
            "think(keys=0.4)+kivi(bits=2)", "think(keys=0.4,restore=mean)+kivi(bits=2)",
            "think(keys=0.5,restore=mean)", "kivi(bits=2,group=64,residual=0)", "kivi(bits=2,group=128)",
        ] + prunedValues

    /// Recipes that prune value channels.
    static let prunedValues = [
        "think(keys=0.4,values=0.2)", "think(values=0.35,restore=mean)", "think(keys=0.4,values=0.2)+kivi(bits=2)",
        "think(values=0.9,restore=mean)+kivi(bits=4,residual=32)",
        "think(values=0.4,recent=0)+kivi(keys=4,values=2,residual=0,sinks=4,scales=compact,rotate=values)",
        "think(keys=0.3,values=0.7,restore=mean)+kivi(bits=3,sinks=4,ranges=fitted,scales=compact)",
    ]

    @Test("with every recipe", arguments: recipes)
    func recipe(_ recipe: String) async throws {
        let sample = try await AttentionSample(recipe: recipe)
        #expect(try sample.error(Attention(precision: .precise)) < Tolerance.precise)
        #expect(try sample.error(Attention(precision: .fast)) < Tolerance.fast)
    }

    @Test("of every head dimension and type", arguments: [64, 80, 96, 128, 256, 20], ElementType.allCases)
    func headDimension(_ dimension: Int, type: ElementType) async throws {
        let recipes = [
            "think(keys=0.4)+kivi(bits=2)", "kivi(bits=4,group=64)", type.fullPrecisionRecipe,
            "think(values=0.45,restore=mean)+\(type.fullPrecisionRecipe)",
            "think(values=0.45)+kivi(bits=4,scales=compact,rotate=values)",
        ]
        for recipe in recipes {
            let sample = try await AttentionSample(
                recipe: recipe,
                tokens: 430,
                kvHeads: 1,
                headDimension: dimension,
                elementType: type
            )
            #expect(try sample.error(Attention(precision: .precise)) < Tolerance.precise, "\(recipe)")
            #expect(try sample.error(Attention(precision: .fast)) < Tolerance.fast, "\(recipe)")
        }
    }

    @Test("with 1 to 9 queries to a KV head", arguments: 1...9)
    func group(_ group: Int) async throws {
        for recipe in ["think(keys=0.4,restore=mean)+kivi(bits=2)"] + Self.prunedValues.suffix(2) {
            let sample = try await AttentionSample(recipe: recipe, tokens: 500, group: group)
            for threads in 1...3 {
                let precise = try sample.error(Attention(precision: .precise), threads: threads)
                #expect(precise < Tolerance.precise, "\(recipe)")
                #expect(try sample.error(Attention(precision: .fast), threads: threads) < Tolerance.fast, "\(recipe)")
            }
        }
    }

    @Test(
        "at the edges of blocks, window and pages",
        arguments: [1, 2, 31, 32, 33, 127, 128, 159, 160, 161, 255, 256, 257, 383, 384, 385, 416, 640, 2048, 2065]
    )
    func tokenCount(_ tokens: Int) async throws {
        for recipe in ["kivi(bits=2,residual=0)", "kivi(bits=2)", "kivi(bits=4,group=128,residual=0)"] {
            let sample = try await AttentionSample(recipe: recipe, tokens: tokens, group: 3, kvHeads: 1)
            #expect(try sample.error(Attention(precision: .precise)) < Tolerance.precise, "\(recipe)")
        }
    }

    @Test("over 100,000 tokens")
    func manyTokens() async throws {
        let sample = try await AttentionSample(
            recipe: "think(keys=0.4)+kivi(bits=2)",
            tokens: 100_000,
            group: 1,
            kvHeads: 1,
            headDimension: 32
        )
        #expect(try sample.error(Attention(precision: .precise)) < Tolerance.precise)
        #expect(try sample.error(Attention(precision: .fast)) < Tolerance.fast)
    }

    @Test(
        "with many queries, each of which sees the tokens up to its own",
        arguments: [(1, 1), (1, 5), (7, 7), (7, 3), (40, 40), (200, 0), (300, 20), (600, 600)]
    )
    func manyQueries(queryCount: Int, newTokens: Int) async throws {
        let recipes = [
            "think(keys=0.4,restore=mean)+kivi(bits=2,residual=32)", "f16", "think(values=0.3)",
            "think(values=0.4,restore=mean)+kivi(bits=2,residual=32,sinks=4,scales=compact,rotate=values)",
        ]
        for recipe in recipes {
            let sample = try await AttentionSample(
                recipe: recipe,
                tokens: 400,
                newTokens: newTokens,
                queryCount: queryCount,
                group: 2,
                kvHeads: 1,
                headDimension: 32
            )
            for attention in [Attention(precision: .precise), Attention(slidingWindow: 150, precision: .precise)] {
                #expect(try sample.error(attention) < Tolerance.precise, "\(recipe)")
            }
            #expect(try sample.error(Attention(precision: .fast)) < Tolerance.fast, "\(recipe)")
        }
    }

    @Test(
        "with a sliding window, a soft cap, a scale and learned sinks",
        arguments: [
            Attention(slidingWindow: 100), Attention(slidingWindow: 1), Attention(slidingWindow: 10_000),
            Attention(logitSoftCap: 2), Attention(logitSoftCap: 1e-3), Attention(scale: 0.3), Attention(scale: 0),
            Attention(scale: -0.1, slidingWindow: 300, logitSoftCap: 5),
            Attention(sinkLogits: [4, -3, -.infinity, 0.5]), Attention(sinkLogits: [30, -60, 9, 200]),
            Attention(scale: 0.2, slidingWindow: 90, logitSoftCap: 5, sinkLogits: [2, 1, 0, -1]),
        ]
    )
    func options(attention: Attention) async throws {
        for (queryCount, newTokens) in [(1, 0), (5, 3), (90, 90)] {
            let sample = try await AttentionSample(
                recipe: "kivi(bits=4,residual=32)",
                newTokens: newTokens,
                queryCount: queryCount,
                kvHeads: 1
            )
            for threads in 1...3 { #expect(try sample.error(attention, threads: threads) < Tolerance.precise) }
        }
    }

    @Test(
        "with tokens that were appended one by one, and after a cut",
        arguments: ["kivi(bits=2,residual=32)", "think(values=0.4,restore=mean)+kivi(bits=2,residual=32)"]
    )
    func appendedAndCut(recipe: String) async throws {
        let first = try await AttentionSample(recipe: recipe, tokens: 300, newTokens: 75)
        var layer = first.layer
        let newer = try #require(first.newer)
        for token in 0..<75 {
            try layer.append(
                keys: newer.keys[tokens: token..<token + 1],
                values: newer.values[tokens: token..<token + 1]
            )
        }
        #expect(layer.tokenCount == 375)
        let whole = AttentionSample(layer: layer, queries: first.queries)
        #expect(try whole.error(Attention(precision: .precise)) < Tolerance.precise)
        try layer.truncate(to: 290)
        let cut = AttentionSample(layer: layer, queries: first.queries)
        #expect(try cut.error(Attention(precision: .precise)) < Tolerance.precise)
    }
}
