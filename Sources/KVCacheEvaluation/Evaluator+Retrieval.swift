internal import ArchiveCoding
internal import CacheArchives
internal import CachePacking
internal import KVCacheCodecs
internal import KVCacheModel
internal import LlamaDecoder

extension Evaluator {
    /// Asks for what a prompt hides: after compressing it without a question, and with each.
    ///
    /// The context is computed once. Without a question, every recipe compresses it once and all questions are asked of
    /// copies. With one, the question's tokens are computed after the full-precision context, and all but its last are
    /// compressed, so that every answer is computed from the compressed cache.
    func measureRetrieval(
        _ prompt: RetrievalPrompt,
        recipes: [Recipe],
        take: (Recipe, _ chosen: String?, TrialOutcome) throws -> Void
    ) async throws {
        let window = recipes.map(\.observationWindow).max() ?? 0
        let full = try await decoder.fullCache(
            prompt.context,
            queryWindow: window,
            statistics: recipes.reduce(into: []) { $0.formUnion($1.modelStatistics) },
            metadata: metadata
        )
        var unseen = [[Bool]](repeating: [], count: recipes.count)
        var chosen: [String?] = []
        for (index, recipe) in recipes.enumerated() {
            let (cache, archive) = try await compressed(full, by: recipe)
            chosen.append((archive.map { $0.recipe } ?? cache.recipe)?.description)
            unseen[index] = try prompt.questions.map { question in
                try answers(question, after: cache, from: 0)
            }
        }
        var seen = [[Bool]](repeating: [], count: recipes.count)
        for question in prompt.questions {
            let asked = question.tokens.count - 1
            let whole =
                asked > 0
                ? try await decoder.fullCache(
                    Array(question.tokens[..<asked]),
                    following: full,
                    queryWindow: window
                ) : full
            for (index, recipe) in recipes.enumerated() {
                let (cache, _) = try await compressed(whole, by: recipe)
                seen[index].append(try answers(question, after: cache, from: asked))
            }
        }
        for (index, recipe) in recipes.enumerated() {
            try take(recipe, chosen[index], .answers(unseen: unseen[index], seen: seen[index]))
        }
    }

    /// A cache as the recipe compresses it, by as many of its last queries as the recipe looks at; and the archive, where
    /// the recipe makes one, from which the cache is then restored in full precision.
    func compressed(_ full: KVCache, by recipe: Recipe) async throws -> (cache: CompressedCache, archive: CacheArchive?)
    {
        try Task.checkCancellation()
        var cache = try full.held(by: decoder.model.configuration, lastQueries: recipe.observationWindow)
        if let profile { cache = try cache.withProfile(profile) }
        guard recipe.archive != nil else { return (try await CompressedCache(compressing: cache, recipe: recipe), nil) }
        let archive = try await CacheArchive(archiving: cache, recipe: recipe)
        let restored = try await CompressedCache(
            restoring: archive,
            profile: profile,
            recipe: try Self.fullPrecision()
        )
        return (restored, archive)
    }

    /// Whether each token of the answer is the model's likeliest, after a cache that has the question's first tokens.
    private func answers(
        _ question: RetrievalPrompt.Question,
        after cache: CompressedCache,
        from first: Int
    ) throws -> Bool {
        var cache = cache
        let width = decoder.model.configuration.vocabularySize
        let logits = try decoder.extend(
            &cache,
            with: Array(question.tokens[first...] + question.answer.dropLast()),
            logits: .lastTokens(question.answer.count)
        )
        var sampler = Sampler()
        return try question.answer.enumerated().allSatisfy { row, token in
            try sampler.choose(logits[row * width..<(row + 1) * width]) == token
        }
    }
}
