public import CachePacking
public import KVCacheModel

/// How a cache is compressed: stages in order, written `think(keys=0.4)+kivi(bits=2)`.
public struct Recipe: Sendable, Equatable, CustomStringConvertible {
    /// One stage of a recipe and the codec that it belongs to.
    public struct Step: Sendable {
        public let stage: any CodecStage

        public init(_ stage: any CodecStage) {
            self.stage = stage
        }

        public var codec: CodecRegistration { stage.codec }

        /// The stage's parameters in canonical text.
        public var parameterText: String { stage.parameters.map(\.text).joined(separator: ",") }

        var text: String { parameterText.isEmpty ? codec.name : "\(codec.name)(\(parameterText))" }
    }

    /// Tokens of a block where no stage asks for a length.
    public static let defaultBlockLength = 32
    /// Queries that make the query profile where no stage asks for a number of them.
    public static let defaultObservationWindow = 32

    /// The stages in order.
    public let steps: [Step]

    /// - Throws: `RecipeError` if there are no steps, too many, or they are out of order.
    public init(steps: [Step]) throws(RecipeError) {
        guard !steps.isEmpty else { throw Self.emptyError }
        guard RecipeRecord.stageCounts.contains(steps.count) else {
            throw RecipeError("\(steps.count) stages are more than \(RecipeRecord.stageCounts.upperBound)")
        }
        for (former, latter) in zip(steps, steps.dropFirst()) where former.codec.role >= latter.codec.role {
            let message =
                former.codec.role == latter.codec.role
                ? "\(former.codec.name) and \(latter.codec.name) do the same work; a recipe has one of them"
                : "\(latter.codec.name) must come before \(former.codec.name)"
            throw RecipeError(message, suggestion: Self.ordered(steps).map(\.text).joined(separator: "+"))
        }
        if let last = steps.dropLast().first(where: \.stage.endsRecipe) {
            throw RecipeError("\(last.codec.name) decides all there is; no stage follows it", suggestion: last.text)
        }
        if steps.count > 1, let alone = steps.first(where: \.stage.standsAlone) {
            throw RecipeError("\(alone.codec.name) is a recipe by itself", suggestion: alone.text)
        }
        self.steps = steps
        let lengths = Set(steps.compactMap(\.stage.blockLength))
        guard lengths.count <= 1 else {
            let wishes = lengths.sorted().map(String.init).joined(separator: " and ")
            throw RecipeError("stages want blocks of \(wishes) tokens, and a cache has blocks of one length")
        }
        guard BlockShape.blockLengths.contains(blockLength) else {
            throw RecipeError("blocks of \(blockLength) tokens: a block has 32, 64 or 128")
        }
        guard BlockShape.residualWindows.contains(residualWindow), observationWindow > 0 else {
            throw RecipeError("windows of \(residualWindow) tokens and \(observationWindow) queries can't be kept")
        }
    }

    /// A recipe of stages in order, such as `Recipe(ThinKCodec(keyRatio: 0.4), KIVICodec(keyBits: 2, valueBits: 2))`.
    ///
    /// - Throws: `RecipeError` if there are no stages, too many, or they are out of order.
    public init(_ stages: any CodecStage...) throws(RecipeError) {
        try self.init(steps: stages.map { Step($0) })
    }

    static let emptyError = RecipeError("a recipe needs a stage", suggestion: "think(keys=0.4)+kivi(bits=2)")

    /// The first step of each role, in order of roles.
    private static func ordered(_ steps: [Step]) -> [Step] {
        steps.indices.filter { index in !steps[..<index].contains { $0.codec.role == steps[index].codec.role } }
            .map { steps[$0] }
            .sorted { $0.codec.role < $1.codec.role }
    }

    /// Tokens of a block.
    public var blockLength: Int { steps.lazy.compactMap(\.stage.blockLength).first ?? Self.defaultBlockLength }

    /// Tokens that stay in full precision at least: what the stages ask for, rounded up to whole blocks.
    public var residualWindow: Int {
        let longest = steps.map(\.stage.residualWindow).max() ?? 0
        return (longest + blockLength - 1) / blockLength * blockLength
    }

    /// First tokens that stages keep in full precision, and the selection of tokens therefore keeps.
    ///
    /// A selection's own first tokens are no sinks: stages after it decide in what precision they are.
    public var sinks: Int { steps.filter { $0.codec.role != .tokenSelection }.map(\.stage.sinks).max() ?? 0 }

    /// The last queries of the prompt that score channels.
    public var observationWindow: Int {
        steps.compactMap(\.stage.observationWindow).max() ?? Self.defaultObservationWindow
    }

    /// The stage that chooses which tokens stay, if there is one.
    public var tokenSelection: (any TokenSelectionStage)? {
        steps.lazy.compactMap { $0.stage as? any TokenSelectionStage }.first
    }

    /// Whether a stage looks at all layers before it decides about the first.
    public var needsWholeCache: Bool { steps.contains { $0.stage.needsWholeCache } }

    /// The type of the only caches that the recipe takes; nil where it takes any.
    public var elementType: ElementType? {
        steps.lazy.compactMap { ($0.stage as? FullPrecisionCodec)?.elementType }.first
    }

    /// What stages look at where the model can give it.
    public var modelStatistics: ModelStatistics { steps.reduce(into: []) { $0.formUnion($1.stage.modelStatistics) } }

    /// What the stages decide for a layer that shares nothing with others; where tokens are selected, `statistics` are
    /// then those of what stays.
    ///
    /// - Throws: `CodecError` if a stage can't decide, or the format can't say what was decided.
    public func plan(for statistics: inout LayerStatistics) throws(CodecError) -> LayerPlan {
        if let tokenSelection {
            statistics = try LayerSelection(statistics, by: tokenSelection, sinks: sinks).selected()
        }
        return try LayerDraft.plan(for: &statistics, stages: steps.map(\.stage))
    }

    /// The recipe in canonical text.
    public var description: String { steps.map(\.text).joined(separator: "+") }

    /// A recipe's text for people: after the name of the preset that stands for it, or of the budget that chose it, if
    /// there is one.
    public static func title(_ text: String, name: String?) -> String { name.map { "\($0): \(text)" } ?? text }

    public static func == (left: Recipe, right: Recipe) -> Bool { left.description == right.description }
}
