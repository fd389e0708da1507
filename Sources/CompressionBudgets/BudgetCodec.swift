public import CachePacking
internal import ComputeRuntime
public import KVCacheCodecs
internal import KVCacheModel
internal import KVCacheQuality
internal import ThinKPruning

/// Chooses soft pruning's budgets from what its user cares about: `auto(bits=2.4)`, `auto(ratio=5)`, `auto(error=2%)`.
///
/// A cache that it compresses has the plain recipe that was chosen, and says why in its metadata: Formats/think.md,
/// "Budgets".
public struct BudgetCodec: CodecStage {
    public enum Goal: Sendable, Equatable {
        /// Bits per number of the blocks, scales included.
        case bits(BitBudget)
        /// How many times smaller than float16 the whole snapshot is to be.
        case ratio(FixedPointNumber)
        /// The relative error of the attention output for the cache's own queries, in percent.
        case error(FixedPointNumber)
    }

    public let goal: Goal

    init(_ parameters: StageParameters) throws(RecipeError) {
        switch (parameters["bits"], parameters["ratio"], parameters["error"]) {
        case (let text?, nil, nil):
            goal = .bits(try BitBudget("bits", text, of: "auto", in: BudgetSplit.range, example: "2.4"))
        case (nil, let text?, nil):
            guard let ratio = FixedPointNumber(text, places: 3), (1...16).contains(ratio.doubleValue) else {
                throw RecipeError("auto: ratio=\(text) must be a decimal from 1 to 16", suggestion: "auto(ratio=4)")
            }
            goal = .ratio(ratio)
        case (nil, nil, let text?):
            guard text.last == "%", let percent = FixedPointNumber(text.dropLast(), places: 3), percent.units > 0,
                percent.doubleValue <= 100
            else {
                throw RecipeError(
                    "auto: error=\(text) must be more than 0 and at most 100, with a % sign",
                    suggestion: "auto(error=2%)"
                )
            }
            goal = .error(percent)
        default:
            throw RecipeError("auto takes one of bits, ratio and error", suggestion: Self.registration.example)
        }
    }

    /// What recipes know the codec by; a file names what was chosen in its place.
    public static let registration = CodecRegistration(
        number: 6,
        name: "auto",
        role: .channelSelection,
        parameterNames: ["bits", "ratio", "error"],
        example: "auto(bits=2.4)",
        help: "chooses bits and values of think: bits=2.4 per number, ratio=4 of the whole snapshot, or error=2% of "
            + "attention's output"
    ) { (parameters) throws(RecipeError) in try BudgetCodec(parameters) }

    public var codec: CodecRegistration { Self.registration }

    public var parameters: [StageParameter] {
        switch goal {
        case .bits(let budget): [StageParameter("bits", budget.text)]
        case .ratio(let ratio): [StageParameter("ratio", ratio)]
        case .error(let percent): [StageParameter("error", "\(percent)%")]
        }
    }

    public var residualWindow: Int { SoftThinKCodec.defaultRecent }
    public var sinks: Int { SoftThinKCodec.defaultSinks }
    public var observationWindow: Int? { ThinKCodec.defaultObserve }
    public var endsRecipe: Bool { true }
    public var needsWholeCache: Bool { if case .error = goal { true } else { false } }

    /// Soft pruning with the budgets that meet the goal.
    ///
    /// - Throws: `CodecError` if none does, which says what can be had; `CancellationError`.
    public func prepared(for cache: CacheOutline) async throws -> any CodecStage {
        let split = BudgetSplit(cache)
        let chosen: SoftThinKCodec
        let reason: String
        switch goal {
        case .bits(let budget):
            chosen = try split.stage(budget)
            reason = "the largest budgets that fit \(budget.text) bits per number"
        case .ratio(let ratio):
            let size = SnapshotSizeEstimate(cache, residualWindow: residualWindow)
            guard let budget = size.budget(ratio: ratio.doubleValue, range: BudgetSplit.range) else {
                let most = FixedPointNumber(
                    units: Int(size.ratio(BudgetSplit.range.lowerBound) * 100),
                    places: 2
                )
                throw CodecError(
                    .unsupportedPlan,
                    "auto can't make a snapshot of \(cache.tokenCount) tokens \(ratio) times smaller, as "
                        + "\(residualWindow) tokens and more stay in full precision: the most is about ratio=\(most)"
                )
            }
            chosen = try split.stage(budget)
            reason = "the largest budgets that make it \(ratio) times smaller: \(budget.text) bits per number"
        case .error(let percent):
            let (budget, error) = try await leastBudget(cache, split: split, error: percent.doubleValue / 100)
            chosen = try split.stage(budget)
            let found = FixedPointNumber(percent: error)?.description ?? ""
            let count = BudgetSplit.steps.count
            reason = "the smallest of \(count) budgets that do, \(budget.text) bits per number, has \(found) %"
        }
        let text = parameters[0].text
        return try await chosen.withRationale("auto(\(text)): \(reason); \(split.reason)").prepared(for: cache)
    }

    /// Only a choice that was prepared decides.
    ///
    /// - Throws: `CodecError` always.
    public func decide(_ statistics: inout LayerStatistics, draft: inout LayerDraft) throws(CodecError) {
        throw CodecError(.unsupportedPlan, layer: statistics.layer, "auto chooses for a whole cache, not for a layer")
    }

    /// Checks that attention can be computed, as numbers that are not finite hide errors.
    ///
    /// - Throws: `CodecError` naming the first number that is not finite.
    private static func checkFinite(_ layers: [LayerStatistics]) throws(CodecError) {
        for layer in layers {
            try layer.checkFinite(
                remedy: "auto(error=...) can measure no error of attention beside it; take auto(bits=...) instead"
            )
            for head in 0..<layer.geometry.kvHeads {
                _ = try layer.ownQueryMeanSquares(head: head, window: QualityMeasurement.maximumQueries)
            }
        }
    }

    /// The smallest budget by which the attention output keeps to an error, and the error that it has.
    private func leastBudget(
        _ cache: CacheOutline,
        split: BudgetSplit,
        error limit: Double
    ) async throws -> (BitBudget, Double) {
        guard let layers = cache.layers else {
            throw CodecError(
                .unsupportedPlan,
                "auto(error=...) looks at the whole cache, and its layers came one by one; take auto(bits=...) instead"
            )
        }
        let original = try KVCache(layers: layers.map(\.source), tokenCount: cache.tokenCount)
        // Infinite where the budget can't be kept.
        func error(of budget: BitBudget, progress: ProgressHandler?) async throws -> Double {
            let compressed: CompressedCache
            do {
                let recipe = try Recipe(try split.stage(budget))
                compressed = try await CompressedCache(
                    compressing: original,
                    recipe: recipe,
                    progress: progress?.part(0...0.5)
                )
            } catch let error as CodecError where error.code == .unsupportedPlan {
                return .infinity
            }
            let comparison = try CacheComparison(original: original, compressed: compressed)
            let quality = try await comparison.measure(progress: progress?.part(0.5...1))
            guard let error = quality.total.attention else {
                throw CodecError(
                    .missingQueries,
                    "auto(error=...) measures the attention of the cache's own queries, and none came with the cache; "
                        + "export it with queries, or take auto(bits=...)"
                )
            }
            if error.isNaN { try Self.checkFinite(layers) }
            return Double(error)
        }
        // Errors fall as budgets grow: the first budget that keeps to the limit is found by halving.
        var steps = BudgetSplit.steps[...]
        var best: (BitBudget, Double)?
        var last = Double.infinity
        var trials = 0
        while let middle = steps.indices.middle {
            let share = 1 / Double(BudgetSplit.mostTrials)
            let part = cache.progress?.part(Double(trials) * share...Double(trials + 1) * share)
            let found = try await error(of: steps[middle], progress: part)
            trials += 1
            if found <= limit {
                best = (steps[middle], found)
                steps = steps[..<middle]
            } else {
                last = found
                steps = steps[(middle + 1)...]
            }
        }
        if let best { return best }
        // The last that was tried is the largest budget.
        let least = FixedPointNumber(percent: last).map { "the least is error=\($0)%" } ?? "it is not finite"
        throw CodecError(
            .unsupportedPlan,
            "auto can't keep the error of the attention output within \(parameters[0].value): \(least); exact has none"
        )
    }
}

extension FixedPointNumber {
    /// A share in percent, rounded up; nil if it is not finite, or so large that it says nothing.
    fileprivate init?(percent share: Double) {
        guard share >= 0, share < 1e6 else { return nil }
        self.init(units: Int((share * 100_000).rounded(.up)), places: 3)
    }
}

extension Range<Int> {
    fileprivate var middle: Int? { isEmpty ? nil : lowerBound + count / 2 }
}
