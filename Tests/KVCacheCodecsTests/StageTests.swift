import TestSupport
import Testing
import ThinkCompress

/// What stages may count on: they decide what is undecided, see whole layers, and may share between layers.
@Suite struct StageTests {
    /// A stage that does what a test says.
    private struct Stage: CodecStage {
        static let registration = CodecRegistration(
            number: 4_000_000_000,
            name: "stage",
            role: .tokenSelection,
            parameterNames: [],
            example: "stage",
            help: "does what a test says"
        ) { (_: StageParameters) throws(RecipeError) in Stage { _, _ in } }

        var parameters: [StageParameter] { [] }
        var codec: CodecRegistration { Self.registration }
        var blockLength: Int?
        var residualWindow = 0
        var prepare: (@Sendable (CacheOutline) throws(CodecError) -> Stage)?
        var decide: @Sendable (inout LayerStatistics, inout LayerDraft) throws(CodecError) -> Void

        init(
            blockLength: Int? = nil,
            residualWindow: Int = 0,
            prepare: (@Sendable (CacheOutline) throws(CodecError) -> Stage)? = nil,
            decide: @escaping @Sendable (inout LayerStatistics, inout LayerDraft) throws(CodecError) -> Void
        ) {
            self.blockLength = blockLength
            self.residualWindow = residualWindow
            self.prepare = prepare
            self.decide = decide
        }

        func prepared(for cache: CacheOutline) throws(CodecError) -> any CodecStage { try prepare?(cache) ?? self }

        func decide(_ statistics: inout LayerStatistics, draft: inout LayerDraft) throws(CodecError) {
            try decide(&statistics, &draft)
        }
    }

    private static func makeCache(layers: Int = 2) throws -> KVCache {
        var model = TestCache()
        (model.layers, model.tokens, model.headDimension, model.window) = (layers, 64, 16, 8)
        return try model.make()
    }

    @Test("later stages leave alone what an earlier one has decided", arguments: [false, true])
    func decidedStays(restoresMeans: Bool) async throws {
        let cache = try Self.makeCache()
        let outliers: [UInt16] = [0, 1, 2, 3]
        let first = Stage { _, draft in
            for head in draft.heads.indices {
                draft.heads[head].keyRuns[0].channels.removeAll(where: outliers.contains)
                draft.heads[head].keyRuns.append(.init(channels: outliers, coding: .fullPrecision))
                draft.heads[head].prune([15])
            }
        }
        let recipe = try Recipe(
            first,
            ThinKCodec(keyRatio: 0.5, recent: 0, restoration: restoresMeans ? .mean : .none),
            KIVICodec(keyBits: 2, valueBits: 4, residual: 0)
        )
        let compressed = try await CompressedCache(compressing: cache, recipe: recipe)
        for layer in compressed.layers {
            for plan in layer.plan.heads {
                // Of the 11 channels that were undecided, the 5 of lowest score are pruned beside the one before.
                #expect(plan.keyRuns.map(\.coding) == [try Coding(width: 2), .fullPrecision])
                #expect(plan.keyRuns.map(\.channels.count) == [6, 4])
                #expect(plan.keyRuns[1].channels == outliers)
                #expect(plan.keyMeans.count == (restoresMeans ? 6 : 0))
                #expect(!plan.keepMask[15])
                if restoresMeans {
                    #expect(plan.keyMeans.last == 0)
                    #expect(plan.keyMeans.dropLast().allSatisfy { $0 != 0 })
                }
            }
        }
    }

    @Test("a stage may share a budget between layers by what all of them hold")
    func sharedBudget() async throws {
        let cache = try Self.makeCache(layers: 3)
        let coding = (fine: try Coding(width: 8), coarse: try Coding(width: 2))
        // The layer whose keys are largest gets 8 bits, the others 2.
        let stage = Stage(
            prepare: { outline throws(CodecError) in
                var energies: [Double] = []
                for var layer in outline.layers ?? [] {
                    energies.append(try layer.meanSquares(.keys, head: 0).reduce(0, +))
                }
                let largest = energies.indices.max { energies[$0] < energies[$1] }
                return Stage { statistics, draft in
                    for head in draft.heads.indices {
                        draft.heads[head].values = statistics.layer == largest ? coding.fine : coding.coarse
                    }
                }
            },
            decide: { _, _ throws(CodecError) in
                throw CodecError(.unsupportedPlan, "not the stage that was prepared")
            }
        )
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe(stage))
        let widths = compressed.layers.map { $0.plan.heads[0].values.width }
        #expect(widths.sorted() == [2, 2, 8])
        #expect(compressed.layers.allSatisfy { layer in Set(layer.plan.heads.map(\.values)).count == 1 })
    }

    @Test("wishes that a cache can't fulfil are refused when the recipe is made")
    func impossibleWishes() {
        func recipe(_ first: Stage, group: Int = 32) throws {
            _ = try Recipe(first, KIVICodec(keyBits: 2, valueBits: 2, group: group))
        }
        let wishes: [(Stage, String)] = [
            (Stage(blockLength: 48) { _, _ in }, "stages want blocks of 32 and 48 tokens"),
            (Stage(blockLength: 128) { _, _ in }, "stages want blocks of 32 and 128 tokens"),
            (Stage(residualWindow: 70_000) { _, _ in }, "windows of 70016 tokens"),
        ]
        for (stage, message) in wishes {
            let error = #expect(throws: RecipeError.self) { try recipe(stage) }
            #expect(error?.message.hasPrefix(message) == true, "\(String(describing: error))")
        }
        let alone = #expect(throws: RecipeError.self) { _ = try Recipe(Stage(blockLength: 48) { _, _ in }) }
        #expect(alone?.message == "blocks of 48 tokens: a block has 32, 64 or 128")
        #expect(throws: Never.self) { try recipe(Stage(blockLength: 128) { _, _ in }, group: 128) }
    }
}
