internal import KVCacheModel

/// What is measured: one task of certain sizes.
public enum EvaluationTask: Codable, Sendable, Hashable {
    /// `continuation` tokens of the text after a compressed prefix of `prefix` tokens.
    case text(prefix: Int, continuation: Int)
    /// Needles, one at each of some depths from 0 to 1, ascending, of a prompt that has `context` tokens together with
    /// a question and its answer.
    case needles(context: Int, depths: [Double])
    /// So many `questions`, each by itself, about `pairs` keys and values in a prompt that has `context` tokens together
    /// with a question and its answer.
    case recall(context: Int, pairs: Int, questions: Int)

    /// Questions that a prompt is asked; nil where there are none.
    var questionCount: Int? {
        switch self {
        case .text: nil
        case .needles(_, let depths): depths.count
        case .recall(_, _, let questions): questions
        }
    }
}

/// Names one measurement: the same key gives the same prompt and, on the same machine, the same outcome.
public struct TrialKey: Codable, Sendable, Hashable {
    public let task: EvaluationTask
    /// Which of the task's trials.
    public let trial: Int
    /// The recipe in canonical text.
    public let recipe: String

    public init(task: EvaluationTask, trial: Int, recipe: String) {
        self.task = task
        self.trial = trial
        self.recipe = recipe
    }
}

/// What a measurement found.
public enum TrialOutcome: Codable, Sendable, Equatable {
    case text(sums: TextOutcome)
    /// Whether each answer was right, with its question unseen by the compression and seen.
    case answers(unseen: [Bool], seen: [Bool])
}

/// A measurement's name and outcome: a line of the journal.
public struct TrialRecord: Codable, JournalRecord, Sendable, Equatable {
    public let key: TrialKey
    /// The plain recipe that the key's recipe chose for the trial's cache; nil if it chooses none.
    public let chosen: String?
    public let outcome: TrialOutcome

    /// Whether a measurement can have given it.
    var isPossible: Bool {
        guard key.trial >= 0, chosen.map({ Self.isRecipe($0) && $0 != key.recipe }) ?? true else { return false }
        guard case .text(let sums) = outcome else {
            guard case .answers(let unseen, let seen) = outcome else { return false }
            return unseen.count == key.task.questionCount && seen.count == unseen.count
        }
        guard key.task.questionCount == nil else { return false }
        let sizes = [sums.fileBytes, sums.payloadBytes, sums.values, sums.tokens]
        let numbers =
            [sums.divergence, sums.surprise, sums.fullSurprise, sums.attentionError ?? 0]
            + (sums.layerAttentionErrors ?? [])
        return sums.layerAttentionErrors?.count ?? 0 <= CacheGeometry.Limits.layers.upperBound
            && sizes.allSatisfy { (1...1 << 50).contains($0) } && (0...sums.tokens).contains(sums.agreements)
            && numbers.allSatisfy(\.isFinite)
    }
}

extension TrialRecord {
    /// Whether a text can be a recipe's, which is printable ASCII.
    private static func isRecipe(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.allSatisfy { (0x20...0x7E).contains($0) }
    }
}

/// What continuing a text after a compressed prefix gave.
public struct TextOutcome: Codable, Sendable, Equatable {
    /// Bytes of the prefix's snapshot.
    public var fileBytes: Int
    /// Bytes of it that hold keys and values.
    public var payloadBytes: Int
    /// Numbers of the cache, keys and values together.
    public var values: Int
    /// Tokens after which the next one was predicted.
    public var tokens: Int
    /// Sum over the tokens of the divergence from full precision, in nats.
    public var divergence: Double
    /// Tokens whose likeliest successor is full precision's.
    public var agreements: Int
    /// Sum of the true successors' negative log probabilities, in nats, and the same in full precision.
    public var surprise: Double
    public var fullSurprise: Double
    /// Relative error of the attention output of the prefix's last 32 queries: over all layers, and layer by layer.
    public var attentionError: Double?
    public var layerAttentionErrors: [Double]?
}
