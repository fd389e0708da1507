public import CachePacking
public import KVCacheCodecs
internal import KVCacheModel

/// Soft ThinK: the queries decide how many bits each key channel gets, none for those that matter least.
///
/// Beyond arXiv 2407.21018, whose score it takes as the weight of measured errors; Formats/think.md, "Soft pruning".
public struct SoftThinKCodec: CodecStage {
    /// First tokens that are kept in full precision.
    public static let defaultSinks = 4
    /// The newest rows that are kept in full precision.
    public static let defaultRecent = 128

    /// Bits per key, scales included: a budget that the KV heads of a layer share.
    public let budget: BitBudget
    /// Widths that channels may get, ascending; 0 for none, where the channel's mean stands in.
    public let widths: [Int]
    private let codings: [Coding]
    /// Bits per value, scales included: a budget that all KV heads of the cache share by the model's profile, or that each
    /// keeps to without one. Nil if values are left to the next stage.
    public let valueBudget: BitBudget?
    /// Widths of the values of each layer's KV heads, once they are shared out.
    private var valueWidths: [[Int]]?
    /// Queries that weight the channels' errors, those of the prompt's last tokens.
    public let observe: Int
    /// The newest rows of each layer that keep every channel.
    public let recent: Int
    public let sinks: Int
    public private(set) var score: ThinKCodec.Score
    public private(set) var rationale: String?

    /// Widths that channels may get if nothing is said.
    public static let defaultWidths = [0, 2, 3, 4, 5]

    /// - Throws: `RecipeError` if a budget is out of range.
    public init(budget: BitBudget, valueBudget: BitBudget? = nil) throws(RecipeError) {
        let values = valueBudget.map { ",values=\($0.text)" } ?? ""
        try self.init(
            StageParameters(
                stage: ThinKCodec.registration.name,
                text: "bits=\(budget.text)" + values,
                allowed: ThinKCodec.registration.parameterNames
            )
        )
    }

    init(_ parameters: StageParameters) throws(RecipeError) {
        let text = parameters["bits"] ?? ""
        budget = try BitBudget("bits", text, of: "think", example: "2.5")
        valueBudget = try parameters["values"].map { text throws(RecipeError) in
            try BitBudget("values", text, of: "think", example: "2.25")
        }
        widths = try Self.widths(parameters["widths"])
        do {
            var codings: [Coding] = []
            for width in widths where width > 0 {
                codings.append(try Coding(width: width, scales: .compact, ranges: .fitted))
            }
            self.codings = codings
        } catch {
            throw RecipeError("think: \(error)")
        }
        if let hard = ["keys", "restore"].first(where: { parameters[$0] != nil }) {
            throw RecipeError(
                "think takes either keys, the share of channels to prune, or bits; \(hard) does not go with bits",
                suggestion: "think(bits=\(text))"
            )
        }
        observe = try parameters.integer("observe", in: ThinKCodec.windows) ?? ThinKCodec.defaultObserve
        recent = try parameters.integer("recent", in: 0...ThinKCodec.windows.upperBound) ?? Self.defaultRecent
        score = try parameters.word("score", as: ThinKCodec.Score.self) ?? .queries
        sinks = try parameters.integer("sinks", in: LayerPlan.sinkCounts) ?? Self.defaultSinks
    }

    public var codec: CodecRegistration { ThinKCodec.registration }

    public var parameters: [StageParameter] {
        var result = [StageParameter("bits", budget.text)]
        if let valueBudget { result.append(StageParameter("values", valueBudget.text)) }
        if widths != Self.defaultWidths {
            result.append(StageParameter("widths", Self.text(widths: widths)))
        }
        if observe != ThinKCodec.defaultObserve { result.append(StageParameter("observe", observe)) }
        if recent != Self.defaultRecent { result.append(StageParameter("recent", recent)) }
        if score != .queries { result.append(StageParameter("score", score.rawValue)) }
        if sinks != Self.defaultSinks { result.append(StageParameter("sinks", sinks)) }
        return result
    }

    /// The stage with a line about why it was chosen.
    public func withRationale(_ rationale: String) -> SoftThinKCodec {
        var result = self
        result.rationale = rationale
        return result
    }

    /// What values of a dimension take in each width, ascending: the budgets of which nothing is left over.
    public static func valueBudgets(dimension: Int, blockLength: Int) -> [BitBudget] {
        ValueWidths.budgets(dimension: dimension, blockLength: blockLength)
    }

    public var residualWindow: Int { recent }
    public var observationWindow: Int? { observe }

    /// Shares the values' budget between all KV heads, if the model's profile says what errors cost. Without queries and
    /// profile the keys' errors count as they are.
    ///
    /// - Throws: `CodecError` if the budget is less than the least that can be stored.
    public func prepared(for cache: CacheOutline) async throws -> any CodecStage {
        var result = self
        if score == .queries, !cache.hasQueries {
            result.score = .keys
            let reason = "no queries came with the cache, so that keys' widths are by their errors alone"
            result.rationale = rationale.map { "\($0); \(reason)" } ?? reason
        }
        guard let valueBudget, let profile = cache.profile, profile.contains(where: { $0.sensitivity != nil }) else {
            return result
        }
        let widths = ValueWidths(
            profile,
            geometry: cache.geometry,
            budget: valueBudget,
            blockLength: cache.blockLength
        )
        guard let shared = widths.allocated(layerCount: cache.geometry.layers.count) else {
            throw Self.tooFewBits(valueBudget, least: widths.leastBudget)
        }
        result.valueWidths = shared
        return result
    }

    /// Gives every undecided key channel a width, or prunes it, and values theirs, if it is asked to.
    ///
    /// - Throws: `CodecError` if a key or query is not finite or can't be quantized, some layers came with queries and this
    ///   one with none, or the budget is less than the least that can be stored.
    public func decide(_ statistics: inout LayerStatistics, draft: inout LayerDraft) throws(CodecError) {
        if statistics.held.beginsWithFirst(sinks) { draft.sinks = max(draft.sinks, sinks) }
        try decideValues(statistics, draft: &draft)
        try decideKeys(statistics, draft: &draft)
    }

    private func decideKeys(_ statistics: LayerStatistics, draft: inout LayerDraft) throws(CodecError) {
        let length = statistics.blockLength
        let allocation = WidthAllocation(steps: codings.reversed().map { Self.step($0, blockLength: length) })
        let undecided = draft.heads.map(\.undecidedChannels)
        let channels = undecided.reduce(0) { $0 + $1.count }
        guard channels > 0 else { return }
        let lines = budget.byteCount(numbers: channels * length) / Self.lineBytes
        guard allocation.comparisons(channels: undecided.map(\.count), lines: lines) <= Self.maximumComparisons else {
            throw CodecError(
                .unsupportedPlan,
                layer: statistics.layer,
                "think would take too long to share bits between \(channels) channels of \(undecided.count) KV heads in "
                    + "blocks of \(length); choose smaller blocks, as kivi's group=32, or think(keys=...)"
            )
        }
        var heads: [WeightedHead] = []
        for (head, channels) in undecided.enumerated() {
            heads.append(try weigh(head, channels: channels, statistics, from: draft.sinks))
        }
        guard let counts = allocation.allocate(heads.map(\.losses), lines: lines) else {
            let least = heads.reduce(0) {
                $0 + allocation.leastLines(channels: $1.channels.count, canPrune: widths.contains(0))
            }
            let bits = BitBudget(bytes: least * Self.lineBytes, numbers: channels * length)
            throw CodecError(
                .unsupportedPlan,
                layer: statistics.layer,
                "think can't store keys in \(budget.text) bits each with widths "
                    + "\(Self.text(widths: widths)): the least is bits=\(bits.text)"
            )
        }
        for head in draft.heads.indices {
            heads[head].apply(counts[head], codings: codings.reversed(), to: &draft.heads[head])
        }
    }

    private func decideValues(_ statistics: LayerStatistics, draft: inout LayerDraft) throws(CodecError) {
        guard let valueBudget, statistics.geometry.valueDimension > 0 else { return }
        let dimension = statistics.geometry.valueDimension
        for head in draft.heads.indices where draft.heads[head].values == nil {
            let width =
                valueWidths?[statistics.layer][head]
                ?? ValueWidths.widest(dimension: dimension, budget: valueBudget, blockLength: statistics.blockLength)
            guard let width else {
                let least = ValueWidths.budgets(dimension: dimension, blockLength: statistics.blockLength)[0]
                throw Self.tooFewBits(valueBudget, least: least, layer: statistics.layer)
            }
            do {
                let coding = try Coding(width: width, scales: .compact, ranges: .fitted, rotation: .hadamard)
                draft.heads[head].values = coding
            } catch {
                throw CodecError(error, layer: statistics.layer, head: head)
            }
        }
    }

    /// Some seconds of work for a layer, many times what models of today need.
    private static let maximumComparisons = 1 << 33

    private static func tooFewBits(_ budget: BitBudget, least: BitBudget, layer: Int? = nil) -> CodecError {
        CodecError(
            .unsupportedPlan,
            layer: layer,
            "think can't store values in \(budget.text) bits each: the least is values=\(least.text)"
        )
    }

    /// Units of memory are so many bytes: what scales of a quad of channels take.
    private static let unitBytes = 8
    private static let lineBytes = unitBytes * WidthAllocation.unitsPerLine

    private static func step(_ coding: Coding, blockLength: Int) -> WidthAllocation.Step {
        @Sendable func bytes(_ channels: Int) -> Int {
            KeyCodingErrors.byteCount(channels: channels, coding: coding, blockLength: blockLength)
        }
        // The fewest channels that are stored without padding.
        var channels = 4
        while bytes(2 * channels) < 2 * bytes(channels) { channels *= 2 }
        return WidthAllocation.Step(width: coding.width, channels: channels) { count in
            (bytes(count) + unitBytes - 1) / unitBytes
        }
    }

    /// The losses of a head's undecided channels.
    private func weigh(
        _ head: Int,
        channels: [UInt16],
        _ statistics: LayerStatistics,
        from first: Int
    ) throws(CodecError) -> WeightedHead {
        var weights: [Double]?
        if score == .queries {
            weights = statistics.keySensitivities(head: head)
            if weights == nil { weights = try statistics.queryMeanSquares(head: head, window: observe) }
            if weights == nil { throw ThinKCodec.missingQueries }
        }
        let means = try statistics.means(.keys, head: head, from: first).map { Float($0) }
        let errors = KeyCodingErrors(
            keys: statistics.source.keys,
            head: head,
            from: first,
            means: means,
            blockLength: statistics.blockLength
        )
        func losses(_ errors: [Double]) -> [Double] {
            channels.map { channel in errors[Int(channel)] * (weights?[Int(channel)] ?? 1) }
        }
        var byWidth: [[Double]] = []
        for coding in codings.reversed() {
            let found: [Double]?
            do {
                found = try errors.squaredErrors(with: coding)
            } catch {
                throw CodecError(error, layer: statistics.layer, head: head)
            }
            guard let found else { throw statistics.unsupported(.keys, head: head, isSupported: Coding.isQuantizable) }
            byWidth.append(losses(found))
        }
        return WeightedHead(
            channels: channels,
            means: means,
            byWidth: byWidth,
            pruning: losses(errors.squaredDeviations),
            canPrune: widths.contains(0)
        )
    }

    // MARK: - Text

    /// Reads widths such as `0|2|4`.
    private static func widths(_ text: String?) throws(RecipeError) -> [Int] {
        guard let text else { return defaultWidths }
        let widths = text.split(separator: "|", omittingEmptySubsequences: false).map { Int($0) ?? -1 }
        let codes = widths.filter { $0 != 0 }
        guard zip(widths, widths.dropFirst()).allSatisfy({ $0 < $1 }), codes.allSatisfy(Coding.codeWidths.contains),
            (1...HeadPlan.maximumKeyRuns).contains(codes.count)
        else {
            throw RecipeError(
                "think: widths=\(text) must be up to \(HeadPlan.maximumKeyRuns) of "
                    + "\(self.text(widths: Coding.codeWidths)), ascending, and perhaps 0 before them",
                suggestion: "widths=\(self.text(widths: defaultWidths))"
            )
        }
        return widths
    }

    private static func text(widths: [Int]) -> String { widths.map(String.init).joined(separator: "|") }
}

/// The undecided channels of a KV head, most important first, and what widths cost them.
private struct WeightedHead {
    /// In order of what pruning them would lose; of equal ones the lower channel comes first.
    let channels: [UInt16]
    let means: [Float]
    let losses: WidthAllocation.Head

    /// - Parameters:
    ///   - byWidth: for each width, and each channel in the order given.
    init(channels: [UInt16], means: [Float], byWidth: [[Double]], pruning: [Double], canPrune: Bool) {
        let order = channels.indices.sorted { (-pruning[$0], channels[$0]) < (-pruning[$1], channels[$1]) }
        self.channels = order.map { channels[$0] }
        self.means = means
        losses = WidthAllocation.Head(
            losses: byWidth.map { losses in order.map { losses[$0] } },
            pruningLosses: order.map { canPrune ? pruning[$0] : .infinity }
        )
    }

    /// Decides a draft: `counts` channels for each coding, in order, and the rest pruned.
    func apply(_ counts: [Int], codings: [Coding], to draft: inout HeadDraft) {
        var next = 0
        let decided = Set(channels)
        for index in draft.keyRuns.indices { draft.keyRuns[index].channels.removeAll(where: decided.contains) }
        for (count, coding) in zip(counts, codings) {
            draft.keyRuns.append(
                HeadDraft.KeyRun(channels: channels[next..<next + count].sorted(), coding: coding)
            )
            next += count
        }
        draft.prune(Set(channels[next...])) { means[Int($0)] }
    }
}
