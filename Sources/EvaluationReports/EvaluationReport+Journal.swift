internal import Foundation
internal import KVCacheCodecs
public import KVCacheEvaluation
internal import LlamaDecoder

extension EvaluationReport {
    /// The report of a journal.
    ///
    /// Where a journal has measurements of several lengths on text, or lists of several lengths, the ones asked for
    /// are reported, or else the last that were made.
    ///
    /// - Parameters:
    ///   - recipes: the recipes to begin with, in order; others in the journal follow.
    ///   - names: names of some recipes.
    ///   - tasks: what was asked for.
    public init(
        _ journal: EvaluationJournal,
        recipes: [String],
        names: [String: String] = [:],
        tasks: [EvaluationTask]
    ) {
        self.init(model: journal.subject.model, text: journal.subject.text)
        prompts = journal.subject.prompts.rawValue
        let candidates = journal.records.map(\.key.task) + tasks
        let textTask = candidates.last { if case .text = $0 { true } else { false } }
        let recallTask = candidates.last { if case .recall = $0 { true } else { false } }
        if case .text(let prefix, let continuation) = textTask {
            prefixTokens = prefix
            continuationTokens = continuation
        }
        if case .recall(let context, let pairs, _) = recallTask {
            recallContext = context
            recallPairs = pairs
        }

        var order = recipes
        var choices: [String: [EvaluationTask: [String]]] = [:]
        var outcomes: [String: [EvaluationTask: [Int: TrialOutcome]]] = [:]
        var known = Set(recipes)
        for record in journal.records {
            if known.insert(record.key.recipe).inserted { order.append(record.key.recipe) }
            if let chosen = record.chosen {
                choices[record.key.recipe, default: [:]][record.key.task, default: []].append(chosen)
            }
            outcomes[record.key.recipe, default: [:]][record.key.task, default: [:]][record.key.trial] = record.outcome
        }
        let fullPrecision = (try? Evaluator.fullPrecision())?.description
        let reference = fullPrecision.flatMap { outcomes[$0] } ?? [:]
        for recipe in order {
            guard let found = outcomes[recipe] else { continue }
            var result = RecipeResult(recipe: recipe, name: names[recipe])
            let isReference = recipe == fullPrecision
            // Sizes are those of the measurement on text.
            let chosen = choices[recipe].flatMap { byTask in
                textTask.flatMap { byTask[$0] } ?? byTask.flatMap(\.value)
            }
            if !isReference, let chosen = chosen?.mostFrequent {
                (result.recipe, result.name) = (chosen, recipe)
            }
            if let textTask, let measured = found[textTask] {
                let texts = measured.sorted { $0.key < $1.key }.compactMap {
                    if case .text(let sums) = $0.value { sums } else { nil }
                }
                trials = max(trials ?? 0, texts.count)
                result.trials = texts.count
                result.add(texts)
            }
            func tallies(of task: EvaluationTask) -> [AnswerTally] {
                AnswerTally.tallies(of: found[task] ?? [:], against: isReference ? nil : reference[task] ?? [:])
            }
            if let recallTask, found[recallTask] != nil {
                let tally = tallies(of: recallTask).reduce(AnswerTally(), +)
                recallTrials = max(recallTrials ?? 0, tally.asked)
                result.recallTrials = tally.judged
                result.recall = tally.unseen
                result.recallSeen = tally.seen
            }
            var cells: [Int: [Double: AnswerTally]] = [:]
            for case .needles(let context, let depths) in found.keys {
                for (depth, tally) in zip(depths, tallies(of: .needles(context: context, depths: depths))) {
                    cells[context, default: [:]][depth, default: AnswerTally()] += tally
                }
            }
            if !cells.isEmpty {
                result.needle = cells.sorted { $0.key < $1.key }.flatMap { context, row in
                    row.sorted { $0.key < $1.key }.compactMap { depth, tally in
                        NeedleCell(context: context, depth: depth, tally)
                    }
                }
            }
            self.recipes.append(result)
        }
        self = finite
    }
}

extension [String] {
    /// The text that comes most often; of those as frequent, the first in the alphabet.
    fileprivate var mostFrequent: String? {
        Dictionary(grouping: self) { $0 }.max { ($0.value.count, $1.key) < ($1.value.count, $0.key) }?.key
    }
}

/// Answers of a recipe to the same question in many prompts.
private struct AnswerTally {
    /// Questions.
    var asked = 0
    /// Those of them that full precision answers, by which other recipes are judged.
    var judged = 0
    /// Right answers to those, with the question unseen and seen.
    private var unseenCount = 0
    private var seenCount = 0

    /// Shares of right answers; nil where nothing is judged.
    var unseen: Double? { judged > 0 ? Double(unseenCount) / Double(judged) : nil }
    var seen: Double? { judged > 0 ? Double(seenCount) / Double(judged) : nil }

    /// A tally for each question of a task's prompts.
    ///
    /// - Parameters:
    ///   - outcomes: by trial.
    ///   - reference: full precision's; nil for full precision itself, which is judged by all questions.
    static func tallies(of outcomes: [Int: TrialOutcome], against reference: [Int: TrialOutcome]?) -> [AnswerTally] {
        var tallies: [AnswerTally] = []
        for (trial, outcome) in outcomes {
            guard case .answers(let unseen, let seen) = outcome else { continue }
            var isJudged = [Bool](repeating: reference == nil, count: unseen.count)
            if case .answers(let exact, let exactSeen) = reference?[trial] {
                isJudged = zip(exact, exactSeen).map { $0 && $1 }
            }
            for (index, answers) in zip(unseen, seen).enumerated() where index < isJudged.count {
                if index == tallies.count { tallies.append(AnswerTally()) }
                tallies[index].asked += 1
                guard isJudged[index] else { continue }
                tallies[index].judged += 1
                tallies[index].unseenCount += answers.0 ? 1 : 0
                tallies[index].seenCount += answers.1 ? 1 : 0
            }
        }
        return tallies
    }

    static func + (left: AnswerTally, right: AnswerTally) -> AnswerTally {
        var sum = left
        sum += right
        return sum
    }

    static func += (left: inout AnswerTally, right: AnswerTally) {
        left.asked += right.asked
        left.judged += right.judged
        left.unseenCount += right.unseenCount
        left.seenCount += right.seenCount
    }
}

extension EvaluationReport.NeedleCell {
    /// Nil where nothing is judged.
    fileprivate init?(context: Int, depth: Double, _ tally: AnswerTally) {
        guard let unseen = tally.unseen, let seen = tally.seen else { return nil }
        self.init(
            context: context,
            depth: depth,
            trials: tally.judged,
            accuracy: unseen,
            seenAccuracy: seen
        )
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
