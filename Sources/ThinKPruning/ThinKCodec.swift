public import CachePacking
public import KVCacheCodecs
internal import KVCacheModel

/// ThinK: prunes the key channels that matter least to the queries, and the value channels that matter least to the
/// layer's output.
///
/// Source: arXiv 2407.21018, section 3, and what it says of value channels; Formats/think.md.
public struct ThinKCodec: CodecStage {
    /// What key channels are scored by, beside the keys.
    public enum Score: String, Sendable, CaseIterable {
        /// The prompt's queries, or a query profile.
        case queries
        /// Nothing: key norms alone.
        case keys
    }

    /// What stands in for a pruned channel.
    public enum Restoration: String, Sendable, CaseIterable {
        case none
        /// Its mean over the head's rows of the prompt.
        case mean
    }

    /// The paper's observation window, in queries.
    public static let defaultObserve = 32
    /// The newest rows that keep every channel, as in the paper's own runs.
    public static let defaultRecent = 32

    /// The share of key channels to prune, from 0 to less than 1, in whole millionths.
    public var keyRatio: Double { Double(keyMillionths) / Double(Self.million) }

    /// The share of value channels to prune, from 0 to less than 1, in whole millionths.
    public var valueRatio: Double { Double(valueMillionths) / Double(Self.million) }

    /// The ratios as exact decimals, so that `floor(D * ratio)` is the same everywhere.
    private let keyMillionths: Int
    private let valueMillionths: Int
    private static let million = 1_000_000

    /// Queries that score the channels, those of the prompt's last tokens.
    public let observe: Int
    /// The newest rows of each layer that keep every channel: those of the newest tokens that it holds.
    public let recent: Int
    public let restoration: Restoration
    public let score: Score

    /// - Throws: `RecipeError` if a number is out of range.
    public init(
        keyRatio: Double,
        valueRatio: Double = 0,
        observe: Int = defaultObserve,
        recent: Int = defaultRecent,
        restoration: Restoration = .none,
        score: Score = .queries
    ) throws(RecipeError) {
        func text(_ name: String, _ ratio: Double) throws(RecipeError) -> String {
            guard let millionths = Int(exactly: (ratio * Double(Self.million)).rounded()),
                (0..<Self.million).contains(millionths)
            else { throw Self.ratioError(name, "\(ratio)") }
            return "\(name)=\(Self.text(millionths: millionths))"
        }
        let parameters = [
            try text("keys", keyRatio), try text("values", valueRatio), "observe=\(observe)", "recent=\(recent)",
            "restore=\(restoration.rawValue)", "score=\(score.rawValue)",
        ]
        try self.init(
            StageParameters(
                stage: Self.registration.name,
                text: parameters.joined(separator: ","),
                allowed: Self.registration.parameterNames
            )
        )
    }

    init(_ parameters: StageParameters) throws(RecipeError) {
        func millionths(_ name: String) throws(RecipeError) -> Int? {
            guard let text = parameters[name] else { return nil }
            guard let millionths = Self.millionths(text) else { throw Self.ratioError(name, text) }
            return millionths
        }
        let (ofKeys, ofValues) = (try millionths("keys"), try millionths("values"))
        guard ofKeys != nil || ofValues != nil else {
            throw RecipeError(
                "think needs the share of key channels, or of value channels, to prune",
                suggestion: Self.registration.example
            )
        }
        keyMillionths = ofKeys ?? 0
        valueMillionths = ofValues ?? 0
        if let soft = ["widths", "sinks"].first(where: { parameters[$0] != nil }) {
            throw RecipeError("think: \(soft) goes with bits, not with a share to prune", suggestion: "think(bits=2.5)")
        }
        observe = try parameters.integer("observe", in: Self.windows) ?? Self.defaultObserve
        recent = try parameters.integer("recent", in: 0...Self.windows.upperBound) ?? Self.defaultRecent
        restoration = try parameters.word("restore", as: Restoration.self) ?? .none
        score = try parameters.word("score", as: Score.self) ?? .queries
    }

    /// Windows of queries, and of rows but for 0.
    static let windows = 1...BlockShape.residualWindows.upperBound

    /// What recipes and files know the codec by.
    public static let registration = CodecRegistration(
        number: 5,
        name: "think",
        role: .channelSelection,
        parameterNames: ["keys", "bits", "values", "widths", "observe", "recent", "restore", "score", "sinks"],
        example: "think(keys=0.4)",
        help: "ThinK: prunes this share of key channels, and values=0.2 of value channels; observe=32, recent=32, "
            + "restore=none|mean, score=queries|keys; "
            + "or bits=2.5 per key, by channel, and values=2.25 per value, by KV head: widths=0|2|3|4|5, observe=32, "
            + "recent=128, score=queries|keys, sinks=4"
    ) { (parameters) throws(RecipeError) in
        if parameters["bits"] != nil { return try SoftThinKCodec(parameters) }
        return try ThinKCodec(parameters)
    }

    public var codec: CodecRegistration { Self.registration }

    public var parameters: [StageParameter] {
        var result: [StageParameter] = []
        if keyMillionths > 0 || valueMillionths == 0 {
            result.append(StageParameter("keys", Self.text(millionths: keyMillionths)))
        }
        if valueMillionths > 0 { result.append(StageParameter("values", Self.text(millionths: valueMillionths))) }
        if observe != Self.defaultObserve { result.append(StageParameter("observe", observe)) }
        if recent != Self.defaultRecent { result.append(StageParameter("recent", recent)) }
        if restoration != .none { result.append(StageParameter("restore", restoration.rawValue)) }
        if score != .queries { result.append(StageParameter("score", score.rawValue)) }
        return result
    }

    public var residualWindow: Int { recent }
    public var observationWindow: Int? { observe }
    public var modelStatistics: ModelStatistics { valueMillionths > 0 ? .outputWeights : [] }

    /// Prunes the channels of lowest score, of those that no stage has decided about.
    ///
    /// - Throws: `CodecError` if a number that is scored is not finite, or neither queries nor a profile came.
    public func decide(_ statistics: inout LayerStatistics, draft: inout LayerDraft) throws(CodecError) {
        for head in draft.heads.indices {
            if keyMillionths > 0 || valueMillionths == 0 {
                try pruneKeys(of: &draft.heads[head], head: head, statistics: &statistics)
            }
            if valueMillionths > 0 {
                try pruneValues(of: &draft.heads[head], head: head, statistics: &statistics)
            }
        }
    }

    private func pruneKeys(
        of draft: inout HeadDraft,
        head: Int,
        statistics: inout LayerStatistics
    ) throws(CodecError) {
        let meanSquares = try statistics.meanSquares(.keys, head: head)
        var weights: [Double]?
        if score == .queries {
            weights = try statistics.queryMeanSquares(head: head, window: observe)
            guard weights != nil else { throw Self.missingQueries }
        }
        let scores = Self.scores(meanSquares, weights: weights)
        let pruned = Self.lowestChannels(draft.undecidedChannels, scores: scores, millionths: keyMillionths)
        let means = restoration == .mean ? try statistics.means(.keys, head: head) : nil
        draft.prune(Set(pruned)) { channel in means.map { Float($0[Int(channel)]) } }
    }

    private func pruneValues(
        of draft: inout HeadDraft,
        head: Int,
        statistics: inout LayerStatistics
    ) throws(CodecError) {
        let scores = Self.scores(
            try statistics.meanSquares(.values, head: head),
            weights: statistics.outputWeights(head: head)
        )
        let pruned = Self.lowestChannels(draft.valueChannels, scores: scores, millionths: valueMillionths)
        let means = restoration == .mean ? try statistics.means(.values, head: head) : nil
        draft.pruneValues(Set(pruned)) { channel in means.map { Float($0[Int(channel)]) } }
    }

    static var missingQueries: CodecError {
        CodecError(
            .missingQueries,
            "think scores key channels by queries, and neither queries nor a query profile came with the cache; "
                + "export it with queries (layers.N.queries, as Tools/export-cache does), pass a query "
                + "profile (layers.N.q2), write think(...,score=keys) to score by key norms alone, or prune values only"
        )
    }

    private static func ratioError(_ name: String, _ text: String) -> RecipeError {
        RecipeError(
            "think: \(name)=\(text) must be a decimal from 0 to less than 1 with at most six digits",
            suggestion: name == "keys" ? "keys=0.4" : "values=0.2"
        )
    }

    /// Reads `0`, or `0.` and one to six digits.
    private static func millionths(_ text: String) -> Int? {
        FixedPointNumber(text, places: 6).flatMap { (0..<million).contains($0.units) ? $0.units : nil }
    }

    private static func text(millionths: Int) -> String {
        FixedPointNumber(units: millionths, places: 6).description
    }

    /// Channels' scores: their mean squares, times their weights where there are any.
    private static func scores(_ meanSquares: [Double], weights: [Double]?) -> [Double] {
        weights.map { zip(meanSquares, $0).map(*) } ?? meanSquares
    }

    /// The channels to prune; of equal scores the lower channel is kept.
    private static func lowestChannels(
        _ channels: [UInt16],
        scores: [Double],
        millionths: Int
    ) -> ArraySlice<UInt16> {
        let count = channels.count * millionths / million
        return channels.sorted { (scores[Int($0)], $1) < (scores[Int($1)], $0) }.prefix(count)
    }
}
