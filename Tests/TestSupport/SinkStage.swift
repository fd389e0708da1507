package import ThinkCompress

/// A stage that gives sinks to every layer that can have them: one that holds all tokens, or lists so many first ones.
package struct SinkStage: CodecStage {
    private let count: Int
    private let isForced: Bool

    /// - Parameter isForced: whether layers that can't have them get them, too.
    package init(count: Int, isForced: Bool = false) {
        self.count = count
        self.isForced = isForced
    }

    package var codec: CodecRegistration {
        CodecRegistration(
            number: 1000,
            name: "sinks",
            role: .tokenSelection,
            parameterNames: [],
            example: "sinks",
            help: "first tokens in full precision"
        ) { (_) throws(RecipeError) in self }
    }

    package var parameters: [StageParameter] { [] }

    package func decide(_ statistics: inout LayerStatistics, draft: inout LayerDraft) throws(CodecError) {
        if isForced || statistics.held.beginsWithFirst(count) { draft.sinks = count }
    }
}

extension CompressedCache {
    /// Compresses a cache by a recipe, with sinks of which the recipe doesn't tell.
    package init(compressing cache: KVCache, recipe: Recipe, sinks: Int) async throws {
        let steps = (sinks > 0 ? [Recipe.Step(SinkStage(count: sinks))] : []) + recipe.steps
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe(steps: steps))
        self = compressed.with(recipe: recipe.record)
    }

    /// The same cache that tells of another recipe.
    package func with(recipe: RecipeRecord?) -> CompressedCache {
        CompressedCache(
            geometry: geometry,
            recipe: recipe,
            layers: layers,
            tokenCount: tokenCount,
            tokens: tokens,
            positions: positions,
            metadata: metadata,
            profile: profile
        )
    }
}
