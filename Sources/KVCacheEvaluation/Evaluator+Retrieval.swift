internal import CachePacking
internal import KVCacheCodecs
internal import KVCacheModel
internal import LlamaDecoder
internal import TextTokenization

extension Evaluator {
    /// Asks for what a prompt hides: once after compressing the prompt without its question, once with it.
    ///
    /// Where the question is seen, all tokens but its last are compressed, so that every answer is computed from the
    /// compressed cache.
    func measureRetrieval(
        _ prompt: RetrievalPrompt,
        recipes: [Recipe],
        take: (Recipe, TrialOutcome) throws -> Void
    ) async throws {
        let seen = prompt.context + prompt.question.dropLast()
        let window = recipes.map(\.observationWindow).max() ?? 0
        let full = try await decoder.fullCache(seen, queryWindow: window + prompt.question.count, metadata: metadata)
        for recipe in recipes {
            try Task.checkCancellation()
            let parts = [(prompt.context.count, prompt.question), (seen.count, Array(prompt.question.suffix(1)))]
            var isFound: [Bool] = []
            for (count, rest) in parts {
                let prefix = try full.prefix(
                    count,
                    queryWindow: recipe.observationWindow,
                    of: decoder.model.configuration
                )
                let cache = try await CompressedCache(compressing: prefix, recipe: recipe)
                isFound.append(try finds(prompt.answer, after: cache, followedBy: rest))
            }
            try take(recipe, .answer(unseen: isFound[0], seen: isFound[1]))
        }
    }

    /// Whether the model's likeliest continuation begins with a text.
    private func finds(_ answer: String, after cache: CompressedCache, followedBy tokens: [Int32]) throws -> Bool {
        var cache = cache
        var sampler = Sampler()
        var stream = decoder.model.tokenizer.makeTextStream()
        var text = ""
        var next = tokens
        // An answer has at most as many tokens as letters.
        for _ in 0..<answer.utf8.count {
            guard cache.tokenCount + next.count <= decoder.model.configuration.maximumPositions else { return false }
            let token = try sampler.choose(try decoder.extend(&cache, with: next))
            text += stream.append(token)
            if text.hasPrefix(answer) { return true }
            guard answer.hasPrefix(text) else { return false }
            next = [token]
        }
        return false
    }
}
