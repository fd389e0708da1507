public import CachePacking
public import KVCacheCodecs
internal import KVCacheModel

/// Makes archives: `archive(bits=0.85)`, `archive(ratio=12)`, `archive(step=0.75)`, `archive(quality=balanced)`.
///
/// An archive is for files and networks: it is restored, or packed by another recipe, before it is attended to.
/// Source: Formats/archive.md; the calibrated basis is the project's own.
public struct ArchiveCodec: CodecStage {
    /// What decides the step.
    public enum Goal: Sendable, Equatable {
        /// The step itself, in units in which the profile's weights have the mean 1.
        case step(FixedPointNumber)
        /// A step that was found to be good for it.
        case quality(Quality)
        /// Bits per number that is in chunks, all that chunks have included.
        case bits(FixedPointNumber)
        /// How many times smaller than float16 the whole snapshot is to be.
        case ratio(FixedPointNumber)
    }

    /// Steps by what they are for.
    public enum Quality: String, Sendable, CaseIterable {
        case small, balanced, faithful

        /// The step: with SmolLM2-135M's profile about 0.6, 0.85 and 1.5 bits.
        var step: FixedPointNumber {
            switch self {
            case .small: FixedPointNumber(units: 1_500_000, places: 6)
            case .balanced: FixedPointNumber(units: 750_000, places: 6)
            case .faithful: FixedPointNumber(units: 300_000, places: 6)
            }
        }
    }

    public let goal: Goal
    /// The prompt's last queries, by whose attention tokens get finer steps.
    public let observe: Int
    /// The newest rows of each layer, which are kept in eight bits.
    public let recent: Int
    public let sinks: Int

    public static let defaultObserve = 128
    public static let defaultRecent = 128
    public static let defaultSinks = 4
    private static let windows = 1...65536

    init(_ parameters: StageParameters) throws(RecipeError) {
        let given = ["step", "quality", "bits", "ratio"].filter { parameters[$0] != nil }
        guard given.count <= 1 else {
            throw RecipeError(
                "archive takes one of step, quality, bits and ratio",
                suggestion: Self.registration.example
            )
        }
        func number(
            _ name: String,
            places: Int,
            in range: ClosedRange<Double>,
            example: String
        ) throws(RecipeError) -> FixedPointNumber? {
            guard let text = parameters[name] else { return nil }
            let least = FixedPointNumber(units: Int((range.lowerBound * 1e6).rounded()), places: 6)
            guard let number = FixedPointNumber(text, places: places), range.contains(number.doubleValue) else {
                throw RecipeError(
                    "archive: \(name)=\(text) must be a decimal from \(least) to \(Int(range.upperBound))",
                    suggestion: "archive(\(name)=\(example))"
                )
            }
            return number
        }
        if let step = try number("step", places: 6, in: 0.00001...1000, example: "0.75") {
            goal = .step(step)
        } else if let bits = try number("bits", places: 3, in: 0.05...12, example: "0.85") {
            goal = .bits(bits)
        } else if let ratio = try number("ratio", places: 3, in: 1...200, example: "12") {
            goal = .ratio(ratio)
        } else {
            goal = .quality(try parameters.word("quality", as: Quality.self) ?? .balanced)
        }
        observe = try parameters.integer("observe", in: Self.windows) ?? Self.defaultObserve
        recent = try parameters.integer("recent", in: 0...Self.windows.upperBound) ?? Self.defaultRecent
        sinks = try parameters.integer("sinks", in: LayerPlan.sinkCounts) ?? Self.defaultSinks
    }

    /// What recipes know the codec by.
    public static let registration = CodecRegistration(
        number: 13,
        name: "archive",
        role: .channelSelection,
        parameterNames: ["step", "quality", "bits", "ratio", "observe", "recent", "sinks"],
        example: "archive(bits=0.85)",
        help: "for files alone, restored before use: bits=0.85 per number, ratio=12 of the whole snapshot, "
            + "quality=small, balanced or faithful, or a step; half the size by a model's profile with bases"
    ) { (parameters) throws(RecipeError) in try ArchiveCodec(parameters) }

    public var codec: CodecRegistration { Self.registration }

    public var parameters: [StageParameter] {
        var result =
            switch goal {
            case .step(let step): [StageParameter("step", step)]
            case .quality(let quality): [StageParameter("quality", quality.rawValue)]
            case .bits(let bits): [StageParameter("bits", bits)]
            case .ratio(let ratio): [StageParameter("ratio", ratio)]
            }
        if observe != Self.defaultObserve { result.append(StageParameter("observe", observe)) }
        if recent != Self.defaultRecent { result.append(StageParameter("recent", recent)) }
        if sinks != Self.defaultSinks { result.append(StageParameter("sinks", sinks)) }
        return result
    }

    public var residualWindow: Int { recent }
    public var observationWindow: Int? { observe }
    public var needsWholeCache: Bool { true }
    public var endsRecipe: Bool { true }
    public var standsAlone: Bool { true }

    /// Archives have no blocks.
    ///
    /// - Throws: `CodecError` always.
    public func decide(_ statistics: inout LayerStatistics, draft: inout LayerDraft) throws(CodecError) {
        throw CodecError(
            .unsupportedPlan,
            layer: statistics.layer,
            "archive makes a file that is restored before it is used, not a cache in memory; write one with snapshot"
        )
    }
}

extension Recipe {
    /// The stage by which this recipe makes archives, or nil if it packs caches that are used in place.
    public var archive: ArchiveCodec? { steps.lazy.compactMap { $0.stage as? ArchiveCodec }.first }
}
