internal import ComputeRuntime
public import LlamaDecoder
internal import TextTokenization

/// A text that prompts are cut from, as tokens.
public struct EvaluationText: Sendable {
    /// Tokens of the whole text.
    let tokens: [Int32]
    /// How questions about it are put: the model's way.
    public let form: ChatForm
    /// Tokens that begin every prompt.
    let beginning: [Int32]
    /// Whether a sentence or a line ends with each token.
    private let endsSentence: [Bool]

    /// - Throws: `TokenizerError` if the text can't be encoded; as `LlamaModel.chatForm()`.
    public init(_ text: String, model: LlamaModel) throws {
        let tokenizer = model.tokenizer
        tokens = try tokenizer.encode(text, addingSpecialTokens: false)
        form = try model.chatForm()
        beginning = tokenizer.leadingTokens
        var ends: [Int32: Bool] = [:]
        endsSentence = tokens.map { token in
            if let known = ends[token] { return known }
            let text = tokenizer.decode([token])
            let isEnd = text.hasSuffix(".") || text.hasSuffix("\n")
            ends[token] = isEnd
            return isEnd
        }
    }

    /// Checks that prompts of so many tokens can be cut from the text.
    ///
    /// - Throws: `EvaluationError` that says how long the text must be.
    func check(length: Int) throws(EvaluationError) {
        guard tokens.count >= length else {
            throw EvaluationError(
                "the text has \(tokens.count) tokens, and prompts of \(length) are asked for; pass a longer text or "
                    + "shorter prompts"
            )
        }
    }

    /// Tokens from a random place on, the beginning of a sentence if there is one near.
    func excerpt(of count: Int, using random: inout SplitMix64) -> ArraySlice<Int32> {
        let last = tokens.count - count
        let place = Int.random(in: 0...last, using: &random)
        let near = place..<min(place + 200, last)
        let start = near.first { $0 > 0 && endsSentence[$0 - 1] } ?? place
        return tokens[start..<start + count]
    }

    /// Where to insert something at a depth of an excerpt, 0 to 1: between sentences, as near before it as can be.
    func insertion(depth: Double, in excerpt: ArraySlice<Int32>) -> Int {
        let place = excerpt.startIndex + Int(Double(excerpt.count) * depth)
        guard place > excerpt.startIndex, place < excerpt.endIndex else { return place }
        return (excerpt.startIndex + 1...place).last { endsSentence[$0 - 1] } ?? place
    }
}
