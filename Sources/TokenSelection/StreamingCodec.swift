public import KVCacheCodecs
internal import KVCacheModel

/// StreamingLLM: keeps the first tokens, which attention falls back on, and the newest ones.
///
/// Source: arXiv 2309.17453, section 3; Formats/selection.md.
public struct StreamingCodec: TokenSelectionStage {
    /// The paper's attention sinks.
    public static let defaultSinks = 4
    public static let defaultRecent = 1024

    /// First tokens that stay, of those that a layer holds.
    public let sinks: Int
    /// Newest tokens that stay.
    public let recent: Int

    /// - Throws: `RecipeError` if a number is out of range.
    public init(sinks: Int = defaultSinks, recent: Int = defaultRecent) throws(RecipeError) {
        try self.init(
            StageParameters(
                stage: Self.registration.name,
                text: "sinks=\(sinks),recent=\(recent)",
                allowed: Self.registration.parameterNames
            )
        )
    }

    init(_ parameters: StageParameters) throws(RecipeError) {
        let most = CacheGeometry.Limits.tokens.upperBound
        sinks = try parameters.integer("sinks", in: 0...most) ?? Self.defaultSinks
        recent = try parameters.integer("recent", in: 1...most) ?? Self.defaultRecent
    }

    /// What recipes and files know the codec by.
    public static let registration = CodecRegistration(
        number: 8,
        name: "streaming",
        role: .tokenSelection,
        parameterNames: ["sinks", "recent"],
        example: "streaming(recent=1024)",
        help: "StreamingLLM: keeps the first sinks=4 tokens and the last recent=1024"
    ) { (parameters) throws(RecipeError) in try StreamingCodec(parameters) }

    public var codec: CodecRegistration { Self.registration }

    public var parameters: [StageParameter] {
        var result: [StageParameter] = []
        if sinks != Self.defaultSinks { result.append(StageParameter("sinks", sinks)) }
        if recent != Self.defaultRecent { result.append(StageParameter("recent", recent)) }
        return result
    }

    public func keptCount(ofRows rows: Int, sinks: Int) -> Int { min(max(self.sinks, sinks) + recent, rows) }

    public func keptRows(of statistics: LayerStatistics, head: Int, sinks: Int) -> [Int] {
        Array(0..<max(self.sinks, sinks)) + Array(statistics.rowCount - recent..<statistics.rowCount)
    }
}
