public import KVCacheCodecs
internal import KVCacheModel

/// How many tokens of each KV head stay: a share of those that a layer holds, or a number of them.
public struct KeptTokens: Sendable, Equatable {
    private enum Amount: Equatable {
        /// A share as an exact decimal, so that `floor(rows * share)` is the same everywhere.
        case share(FixedPointNumber)
        case tokens(Int)
    }

    private static let (places, million) = (6, 1_000_000)
    private let amount: Amount

    /// A share of the tokens, more than 0 and at most 1, in whole millionths.
    ///
    /// - Throws: `RecipeError` if it is out of range.
    public static func share(_ share: Double) throws(RecipeError) -> KeptTokens {
        guard share > 0, share <= 1 else { throw shareError("\(share)", stage: "kept") }
        let number = FixedPointNumber(units: Int((share * Double(million)).rounded()), places: places)
        return try KeptTokens(share: number.description, stage: "kept")
    }

    /// So many tokens, or all where a layer holds fewer.
    ///
    /// - Throws: `RecipeError` if there are none, or more than a cache may have.
    public static func tokens(_ count: Int) throws(RecipeError) -> KeptTokens {
        try KeptTokens(StageParameters(stage: "kept", text: "tokens=\(count)", allowed: parameterNames))
    }

    /// The parameters of a stage that say how many tokens stay; one of them is given.
    static let parameterNames = ["keep", "tokens"]

    init(_ parameters: StageParameters) throws(RecipeError) {
        let count = try parameters.integer("tokens", in: CacheGeometry.Limits.tokens)
        switch (parameters["keep"], count) {
        case (let text?, nil): try self.init(share: text, stage: parameters.stage)
        case (nil, let count?): self.init(amount: .tokens(count))
        default:
            throw RecipeError(
                "\(parameters.stage) takes either keep, the share of tokens that stay, or tokens, their number",
                suggestion: "\(parameters.stage)(keep=0.5)"
            )
        }
    }

    private init(share text: String, stage: String) throws(RecipeError) {
        guard let share = FixedPointNumber(text, places: Self.places), share.units > 0, share.doubleValue <= 1 else {
            throw Self.shareError(text, stage: stage)
        }
        self.init(amount: .share(share))
    }

    private init(amount: Amount) {
        self.amount = amount
    }

    private static func shareError(_ text: String, stage: String) -> RecipeError {
        RecipeError(
            "\(stage): keep=\(text) must be a decimal above 0 and at most 1 with at most six digits",
            suggestion: "keep=0.5"
        )
    }

    /// The parameter in canonical text.
    var parameter: StageParameter {
        switch amount {
        case .share(let share): StageParameter("keep", share)
        case .tokens(let count): StageParameter("tokens", count)
        }
    }

    /// Rows that stay of `rows`: the first `sinks` and the last `newest` in any case.
    func count(ofRows rows: Int, sinks: Int, newest: Int) -> Int {
        let count =
            switch amount {
            case .share(let share): rows * share.units / Self.million
            case .tokens(let count): count
            }
        return min(max(count, sinks + newest, 1), rows)
    }

    /// Which rows stay of those that have scores: the first `sinks`, the last `newest`, and of the others those of highest
    /// score, of equal ones the earlier.
    ///
    /// - Parameters:
    ///   - scores: of the rows before the newest.
    ///   - count: rows that stay.
    static func rows(scores: [Double], count: Int, sinks: Int, newest: Int) -> [Int] {
        let highest = (sinks..<scores.count).sorted { (-scores[$0], $0) < (-scores[$1], $1) }
            .prefix(count - sinks - newest)
            .sorted()
        return Array(0..<sinks) + highest + Array(scores.count..<scores.count + newest)
    }

    /// Checks that the tokens that always stay are no more than those that are to stay.
    ///
    /// - Parameter name: the parameter that says how many always stay.
    func check(newest: Int, name: String, stage: String) throws(RecipeError) {
        guard case .tokens(let count) = amount, count < newest else { return }
        throw RecipeError(
            "\(stage): tokens=\(count) must be at least \(name)=\(newest), the newest tokens, which always stay",
            suggestion: "\(stage)(tokens=\(count),\(name)=\(count))"
        )
    }
}
