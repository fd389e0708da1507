internal import KVCacheCodecs

/// The scores of tokens, added up over those next to each other, so that what stays are runs of tokens.
struct TokenPooling: Equatable {
    static let defaultKernel = 7

    /// Over how many tokens; odd.
    let kernel: Int

    init(_ parameters: StageParameters) throws(RecipeError) {
        kernel = try parameters.integer("kernel", in: 1...1023) ?? Self.defaultKernel
        guard kernel % 2 == 1 else {
            throw RecipeError(
                "\(parameters.stage): kernel=\(kernel) must be odd, so that as many tokens are pooled on either side",
                suggestion: "kernel=\(kernel + 1)"
            )
        }
    }

    /// The parameter in canonical text, if it is not the default.
    var parameter: [StageParameter] { kernel == Self.defaultKernel ? [] : [StageParameter("kernel", kernel)] }

    /// The sum of each score and of those next to it, as far as there are any.
    func pooled(_ scores: some RandomAccessCollection<Double>) -> [Double] {
        let scores = Array(scores)
        return scores.indices.map { index in
            scores[max(index - kernel / 2, 0)..<min(index + kernel / 2 + 1, scores.count)].reduce(0, +)
        }
    }
}
