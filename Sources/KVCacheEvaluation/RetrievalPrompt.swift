internal import ComputeRuntime
internal import LlamaDecoder
internal import TextTokenization

/// A text with things to find in it, and questions about them, each to be asked by itself.
struct RetrievalPrompt: Sendable {
    struct Question: Sendable {
        /// What follows the context, up to the answer.
        let tokens: [Int32]
        /// What the model must go on with.
        let answer: [Int32]
    }

    /// Tokens before a question.
    let context: [Int32]
    let questions: [Question]

    /// Things that have numbers.
    private static let nouns = [
        "anchor", "basket", "beacon", "bottle", "bridge", "bucket", "button", "candle", "carpet", "castle", "cradle",
        "dagger", "dragon", "engine", "falcon", "feather", "fiddle", "garden", "hammer", "harbor", "helmet", "island",
        "jacket", "kettle", "ladder", "lantern", "magnet", "marble", "meadow", "mirror", "needle", "orchid", "pebble",
        "pencil", "pillow", "pocket", "rocket", "saddle", "shovel", "silver", "temple", "ticket", "tunnel", "valley",
        "violin", "walnut", "whistle", "window",
    ]

    /// Kinds of numbers, so that the needles of one text are told apart.
    private static let kinds = [
        "magic number", "secret code", "phone number", "serial number", "pass key", "house number",
    ]

    /// Pairs of a list, and needles of a text, at the most.
    static var maximumPairs: Int { nouns.count }

    /// Needles, one for each depth: ` The magic number for lantern is 48213.` somewhere in a text.
    static func needles(
        context: Int,
        depths: [Double],
        text: EvaluationText,
        model: LlamaModel,
        using random: inout SplitMix64
    ) throws -> RetrievalPrompt {
        let first = Int.random(in: kinds.indices, using: &random)
        let names = nouns.shuffled(using: &random).prefix(depths.count).enumerated().map { index, noun in
            "\(kinds[(first + index) % kinds.count]) for \(noun)"
        }
        let numbers = names.map { _ in number(using: &random) }
        return try RetrievalPrompt(
            hidden: zip(depths, zip(names, numbers)).map { (depth: $0, text: " The \($1.0) is \($1.1).") },
            questions: zip(names, numbers).map { name, number in
                Wording(question: "What is the \(name)?", beginning: "The \(name) is ", answer: number)
            },
            context: context,
            text: text,
            model: model,
            using: &random
        )
    }

    /// A list of keys and values, ` The lantern is number 48213. The kettle is number 22302.`, in the middle of a text.
    static func recall(
        context: Int,
        pairs: Int,
        questions: Int,
        text: EvaluationText,
        model: LlamaModel,
        using random: inout SplitMix64
    ) throws -> RetrievalPrompt {
        let list = nouns.shuffled(using: &random).prefix(pairs).map { ($0, number(using: &random)) }
        return try RetrievalPrompt(
            hidden: [(0.5, list.map { " The \($0) is number \($1)." }.joined())],
            questions: list.shuffled(using: &random).prefix(questions).map { noun, number in
                Wording(question: "Which number is the \(noun)?", beginning: "The \(noun) is number ", answer: number)
            },
            context: context,
            text: text,
            model: model,
            using: &random
        )
    }

    private static func number(using random: inout SplitMix64) -> String {
        String(Int.random(in: 10_000...99_999, using: &random))
    }

    /// A question, how its answer begins (as the text says it), and what then must follow.
    private struct Wording {
        let question: String
        let beginning: String
        let answer: String

        /// As the model's conversations are written: the answer's beginning is given, so that only the number counts.
        func encoded(by tokenizer: Tokenizer, form: ChatForm) throws -> Question {
            let text =
                form == .plain
                ? " \(question) \(beginning)" : "\n\n\(question)\(form.turn)\(beginning)"
            // Tokens may reach over the end of the question: the space before a number can belong to either.
            let all = try tokenizer.encode(text + answer, addingSpecialTokens: false)
            let alone = try tokenizer.encode(text, addingSpecialTokens: false)
            let shared = min(zip(all, alone).prefix { $0 == $1 }.count, all.count - 1)
            guard shared > 0 else {
                throw EvaluationError(
                    "the model's tokenizer makes \(all.count) \(all.count == 1 ? "token" : "tokens") of the question "
                        + "\"\(question)\", too few to ask it; use a model for texts like this"
                )
            }
            return Question(tokens: Array(all[..<shared]), answer: Array(all[shared...]))
        }
    }

    /// A prompt that has `length` tokens together with its longest question and answer.
    ///
    /// - Parameter hidden: what is to be found, by ascending depths.
    private init(
        hidden: [(depth: Double, text: String)],
        questions: [Wording],
        context length: Int,
        text: EvaluationText,
        model: LlamaModel,
        using random: inout SplitMix64
    ) throws {
        let tokenizer = model.tokenizer
        let hidden = try hidden.map { ($0.depth, try tokenizer.encode($0.text, addingSpecialTokens: false)) }
        self.questions = try questions.map { try $0.encoded(by: tokenizer, form: text.form) }
        let beginning = text.beginning + (try tokenizer.encode(text.form.beginning, addingSpecialTokens: false))
        let asked = self.questions.map { $0.tokens.count + $0.answer.count }.max() ?? 0
        let rest = length - beginning.count - asked - hidden.reduce(0) { $0 + $1.1.count }
        guard rest > 0 else {
            throw EvaluationError(
                "a prompt of \(length) tokens is too short: what is to be found, a question and its answer have "
                    + "\(length - rest); ask for longer ones"
            )
        }
        let excerpt = text.excerpt(of: rest, using: &random)
        var context = beginning
        var end = excerpt.startIndex
        for (depth, tokens) in hidden {
            let place = max(text.insertion(depth: depth, in: excerpt), end)
            context += excerpt[end..<place] + tokens
            end = place
        }
        self.context = context + excerpt[end...]
    }
}
