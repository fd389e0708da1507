internal import Foundation
public import KVCacheEvaluation

extension EvaluationReport {
    /// The report of a journal.
    ///
    /// Where a journal has measurements of several lengths on text, or lists of several lengths, the ones asked for
    /// are reported, or else the last that were made.
    ///
    /// - Parameters:
    ///   - recipes: the recipes to begin with, in order; others in the journal follow.
    ///   - tasks: what was asked for.
    public init(_ journal: EvaluationJournal, recipes: [String], tasks: [EvaluationTask]) {
        self.init(model: journal.subject.model, text: journal.subject.text)
        let candidates = journal.records.map(\.key.task) + tasks
        let textTask = candidates.last { if case .text = $0 { true } else { false } }
        let recallTask = candidates.last { if case .recall = $0 { true } else { false } }
        if case .text(let prefix, let continuation) = textTask {
            prefixTokens = prefix
            continuationTokens = continuation
        }
        if case .recall(let context, let pairs) = recallTask {
            recallContext = context
            recallPairs = pairs
        }

        var order = recipes
        var outcomes: [String: [EvaluationTask: [TrialOutcome]]] = [:]
        var known = Set(recipes)
        for record in journal.records {
            if known.insert(record.key.recipe).inserted { order.append(record.key.recipe) }
            outcomes[record.key.recipe, default: [:]][record.key.task, default: []].append(record.outcome)
        }
        for recipe in order {
            guard let found = outcomes[recipe] else { continue }
            var result = RecipeResult(recipe: recipe)
            if let textTask, let measured = found[textTask] {
                let texts = measured.compactMap { if case .text(let sums) = $0 { sums } else { nil } }
                trials = max(trials ?? 0, texts.count)
                result.trials = texts.count
                result.add(texts)
            }
            if let recallTask, let answers = found[recallTask] {
                recallTrials = max(recallTrials ?? 0, answers.count)
                result.recallTrials = answers.count
                (result.recall, result.recallSeen) = Self.accuracies(answers)
            }
            let cells = found.compactMap { task, answers -> NeedleCell? in
                guard case .needle(let context, let depth) = task else { return nil }
                let (unseen, seen) = Self.accuracies(answers)
                return NeedleCell(
                    context: context,
                    depth: depth,
                    trials: answers.count,
                    accuracy: unseen,
                    seenAccuracy: seen
                )
            }
            if !cells.isEmpty { result.needle = cells.sorted { ($0.context, $0.depth) < ($1.context, $1.depth) } }
            self.recipes.append(result)
        }
        self = finite
    }

    /// Shares of right answers with the question unseen and seen.
    private static func accuracies(_ outcomes: [TrialOutcome]) -> (unseen: Double, seen: Double) {
        var unseenCount = 0
        var seenCount = 0
        for case .answer(let unseen, let seen) in outcomes {
            unseenCount += unseen ? 1 : 0
            seenCount += seen ? 1 : 0
        }
        return (Double(unseenCount) / Double(outcomes.count), Double(seenCount) / Double(outcomes.count))
    }
}

extension EvaluationReport.RecipeResult {
    fileprivate mutating func add(_ outcomes: [TextOutcome]) {
        guard !outcomes.isEmpty else { return }
        func total(_ value: (TextOutcome) -> Double) -> Double { outcomes.reduce(0) { $0 + value($1) } }
        let values = total { Double($0.values) }
        let tokens = total { Double($0.tokens) }
        ratio = values * 2 / total { Double($0.fileBytes) }
        bitsPerValue = total { Double($0.payloadBytes) } * 8 / values
        kl = total { $0.divergence } / tokens
        top1 = total { Double($0.agreements) } / tokens
        let perplexity = exp(total { $0.surprise } / tokens)
        self.perplexity = perplexity
        perplexityChange = perplexity / exp(total { $0.fullSurprise } / tokens) - 1
        func mean(_ errors: [Double]) -> Double? {
            errors.isEmpty ? nil : errors.reduce(0, +) / Double(errors.count)
        }
        attentionError = mean(outcomes.compactMap(\.attentionError))
        let layers = outcomes.compactMap(\.layerAttentionErrors)
        let means = (0..<(layers.map(\.count).min() ?? 0)).compactMap { layer in mean(layers.map { $0[layer] }) }
        if !means.isEmpty && means.allSatisfy(\.isFinite) { layerAttentionErrors = means }
    }
}
