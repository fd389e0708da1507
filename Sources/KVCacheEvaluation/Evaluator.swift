public import ComputeRuntime
internal import Foundation
public import KVCacheCodecs
public import KVCacheModel
internal import KVSnapshots
public import LlamaDecoder

/// Measures what recipes cost a model, trial by trial, into a journal.
///
/// A trial computes its prompt once in full precision and compresses it by every recipe that the journal has no outcome
/// of. Full precision is float16.
public struct Evaluator: Sendable {
    let decoder: TransformerDecoder
    let text: EvaluationText
    /// The recipes, full precision first.
    public let recipes: [Recipe]
    /// What snapshots of the model say of it.
    let metadata: [String: String]
    /// The model's profile, used in place of the prompts' last queries.
    let profile: [LayerProfile]?
    /// What prompts follow from.
    public let seed: UInt64

    /// Keys and values that a list has at the most.
    public static var maximumPairs: Int { RetrievalPrompt.maximumPairs }

    /// The recipe that all others are compared with.
    public static func fullPrecision() throws(RecipeError) -> Recipe {
        try Recipe(FullPrecisionCodec(elementType: .float16))
    }

    /// - Parameters:
    ///   - recipes: what to measure; full precision is put first if it is not among them.
    ///   - profile: the model's profile of every layer, used in place of the prompts' last queries.
    /// - Throws: `RecipeError` if there is no full precision.
    public init(
        decoder: TransformerDecoder,
        text: EvaluationText,
        recipes: [Recipe],
        metadata: [String: String],
        profile: [LayerProfile]? = nil,
        seed: UInt64
    ) throws(RecipeError) {
        let full = try Self.fullPrecision()
        var chosen = [full]
        for recipe in recipes where !chosen.contains(recipe) { chosen.append(recipe) }
        self.decoder = decoder
        self.text = text
        self.recipes = chosen
        self.metadata = metadata
        self.profile = profile
        self.seed = seed
    }

    /// Makes the trials of some tasks that the journal has no outcome of.
    ///
    /// - Parameters:
    ///   - tasks: what to measure, in order.
    ///   - trials: trials of every task.
    /// - Throws: `EvaluationError` if the text is too short or a prompt can't be made; `ModelError`, `CodecError`, or
    ///   what went wrong with the journal's file; `CancellationError`.
    public func run(
        _ tasks: [EvaluationTask],
        trials: Int,
        journal: EvaluationJournal,
        progress: ProgressHandler? = nil
    ) async throws {
        for task in tasks { try check(task) }
        let total = tasks.reduce(0) { $0 + $1.tokenCount } * trials
        var done = 0
        for task in tasks {
            for trial in 0..<trials {
                let missing = recipes.filter { journal.outcome(of: key(task, trial, $0)) == nil }
                if !missing.isEmpty {
                    switch task {
                    case .text(let prefix, let continuation):
                        try await measureText(
                            prefix: prefix,
                            continuation: continuation,
                            trial: trial,
                            recipes: missing
                        ) { try journal.add($2, for: key(task, trial, $0), chosen: $1) }
                    case .needles, .recall:
                        try await measureRetrieval(prompt(for: task, trial: trial), recipes: missing) {
                            try journal.add($2, for: key(task, trial, $0), chosen: $1)
                        }
                    }
                }
                done += task.tokenCount
                progress?(Double(done) / Double(total))
            }
        }
    }

    private func key(_ task: EvaluationTask, _ trial: Int, _ recipe: Recipe) -> TrialKey {
        TrialKey(task: task, trial: trial, recipe: recipe.description)
    }

    private func check(_ task: EvaluationTask) throws {
        let positions = decoder.model.configuration.maximumPositions
        guard task.tokenCount <= positions else {
            throw EvaluationError(
                "prompts of \(task.tokenCount) tokens are asked for, and the model has \(positions) positions; ask for "
                    + "shorter ones"
            )
        }
        if case .text(let prefix, _) = task, prefix <= text.beginning.count {
            throw EvaluationError(
                "a prefix of \(prefix) tokens has no text: the tokens that begin one are \(text.beginning.count); ask for a "
                    + "longer one"
            )
        }
        if case .recall(_, let pairs, let questions) = task {
            guard (1...RetrievalPrompt.maximumPairs).contains(pairs) else {
                throw EvaluationError("\(pairs) pairs: must be 1...\(RetrievalPrompt.maximumPairs)")
            }
            guard (1...pairs).contains(questions) else {
                throw EvaluationError("\(questions) questions about \(pairs) pairs: must be 1...\(pairs)")
            }
        }
        if case .needles(_, let depths) = task {
            guard (1...RetrievalPrompt.maximumPairs).contains(depths.count),
                depths.allSatisfy((0...1).contains), zip(depths, depths.dropFirst()).allSatisfy(<)
            else {
                throw EvaluationError(
                    "depths of needles must ascend from 0 to 1, \(RetrievalPrompt.maximumPairs) of them at the most"
                )
            }
        }
        try text.check(length: task.tokenCount)
    }

    private func prompt(for task: EvaluationTask, trial: Int) throws -> RetrievalPrompt {
        var random = SplitMix64(seed: seed &+ UInt64(trial) &* 0x9E37_79B9 &+ UInt64(task.tokenCount) << 32)
        let model = decoder.model
        switch task {
        case .needles(let context, let depths):
            return try .needles(context: context, depths: depths, text: text, model: model, using: &random)
        case .recall(let context, let pairs, let questions):
            return try .recall(
                context: context,
                pairs: pairs,
                questions: questions,
                text: text,
                model: model,
                using: &random
            )
        case .text:
            preconditionFailure("text is not asked for anything")
        }
    }
}

extension EvaluationTask {
    /// Tokens of a prompt.
    var tokenCount: Int {
        switch self {
        case .text(let prefix, let continuation): prefix + continuation + 1
        case .needles(let context, _), .recall(let context, _, _): context
        }
    }
}
