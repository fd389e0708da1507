internal import ComputeRuntime
internal import LlamaDecoder
internal import TextTokenization

/// A prompt with something to find in it, the question, and the answer.
struct RetrievalPrompt: Sendable {
    /// Tokens before the question.
    let context: [Int32]
    let question: [Int32]
    /// The text that must follow.
    let answer: String

    /// Things that have numbers.
    private static let nouns = [
        "anchor", "basket", "beacon", "bottle", "bridge", "bucket", "button", "candle", "carpet", "castle", "cradle",
        "dagger", "dragon", "engine", "falcon", "feather", "fiddle", "garden", "hammer", "harbor", "helmet", "island",
        "jacket", "kettle", "ladder", "lantern", "magnet", "marble", "meadow", "mirror", "needle", "orchid", "pebble",
        "pencil", "pillow", "pocket", "rocket", "saddle", "shovel", "silver", "temple", "ticket", "tunnel", "valley",
        "violin", "walnut", "whistle", "window",
    ]

    /// Pairs of a list at the most.
    static var maximumPairs: Int { nouns.count }

    /// A needle: `The magic number for lantern is 48213.` somewhere in a text.
    static func needle(
        context: Int,
        depth: Double,
        text: EvaluationText,
        model: LlamaModel,
        using random: inout SplitMix64
    ) throws -> RetrievalPrompt {
        let noun = nouns[Int.random(in: nouns.indices, using: &random)]
        let number = String(Int.random(in: 10_000...99_999, using: &random))
        let name = "magic number for \(noun)"
        return try RetrievalPrompt(
            hidden: " The \(name) is \(number).",
            question: " What is the \(name)? The \(name) is ",
            answer: number,
            context: context,
            depth: depth,
            text: text,
            model: model,
            using: &random
        )
    }

    /// A list of keys and values, ` lantern: 48213; kettle: 22302;`, in the middle of a text.
    static func recall(
        context: Int,
        pairs: Int,
        text: EvaluationText,
        model: LlamaModel,
        using random: inout SplitMix64
    ) throws -> RetrievalPrompt {
        let chosen = nouns.shuffled(using: &random).prefix(pairs)
        let numbers = chosen.map { _ in String(Int.random(in: 10_000...99_999, using: &random)) }
        let asked = Int.random(in: 0..<pairs, using: &random)
        return try RetrievalPrompt(
            hidden: zip(chosen, numbers).map { " \($0): \($1);" }.joined(),
            question: "\n \(chosen[asked]): ",
            answer: numbers[asked],
            context: context,
            depth: 0.5,
            text: text,
            model: model,
            using: &random
        )
    }

    /// A prompt that has `context` tokens together with its question and answer.
    private init(
        hidden: String,
        question: String,
        answer: String,
        context length: Int,
        depth: Double,
        text: EvaluationText,
        model: LlamaModel,
        using random: inout SplitMix64
    ) throws {
        let hidden = try model.tokenizer.encode(hidden, addingSpecialTokens: false)
        self.question = try model.tokenizer.encode(question, addingSpecialTokens: false)
        self.answer = answer
        let answerCount = try model.tokenizer.encode(answer, addingSpecialTokens: false).count
        let rest = length - text.beginning.count - hidden.count - self.question.count - answerCount
        guard rest > 0 else {
            throw EvaluationError(
                "a prompt of \(length) tokens is too short: what is to be found, its question and its "
                    + "answer have \(length - rest); ask for longer ones"
            )
        }
        let excerpt = text.excerpt(of: rest, using: &random)
        let place = text.insertion(depth: depth, in: excerpt)
        context = text.beginning + excerpt[..<place] + hidden + excerpt[place...]
    }
}
