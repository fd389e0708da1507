public import CachePacking
public import KVCacheCodecs
internal import KVCacheModel

/// H2O: keeps the heavy hitters, the tokens that got most attention from all of the prompt's queries, and the newest.
///
/// Source: arXiv 2306.14048, section 4; Formats/selection.md.
public struct H2OCodec: TokenSelectionStage {
    /// How many tokens stay, the newest included.
    public let kept: KeptTokens
    /// The newest tokens, which always stay; nil for half of those that stay, as in the paper.
    public let recent: Int?
    public private(set) var rationale: String?

    /// - Throws: `RecipeError` if a number is out of range.
    public init(kept: KeptTokens, recent: Int? = nil) throws(RecipeError) {
        try self.init(
            StageParameters(
                stage: Self.registration.name,
                text: kept.parameter.text + (recent.map { ",recent=\($0)" } ?? ""),
                allowed: Self.registration.parameterNames
            )
        )
    }

    init(_ parameters: StageParameters) throws(RecipeError) {
        kept = try KeptTokens(parameters)
        recent = try parameters.integer("recent", in: 1...BlockShape.residualWindows.upperBound)
        try kept.check(newest: recent ?? 0, name: "recent", stage: parameters.stage)
    }

    /// What recipes and files know the codec by.
    public static let registration = CodecRegistration(
        number: 11,
        name: "h2o",
        role: .tokenSelection,
        parameterNames: KeptTokens.parameterNames + ["recent"],
        example: "h2o(keep=0.5)",
        help:
            "H2O: keeps this share of tokens, or tokens=1024: the last recent, by default half of them, and those that "
            + "all queries attended to most"
    ) { (parameters) throws(RecipeError) in try H2OCodec(parameters) }

    public var codec: CodecRegistration { Self.registration }

    public var parameters: [StageParameter] {
        [kept.parameter] + (recent.map { [StageParameter("recent", $0)] } ?? [])
    }

    public var modelStatistics: ModelStatistics { .accumulatedAttention }

    public func prepared(for cache: CacheOutline) -> any CodecStage {
        var stage = self
        if !cache.hasAccumulatedAttention, cache.rowCounts != cache.unselectedRowCounts {
            stage.rationale = "h2o added up the attention of the queries that came with the cache, not of all"
        }
        return stage
    }

    public func keptCount(ofRows rows: Int, sinks: Int) -> Int {
        kept.count(ofRows: rows, sinks: sinks, newest: recent ?? 1)
    }

    /// The rows of most attention, and the newest.
    ///
    /// - Throws: `CodecError` if neither accumulated attention nor queries came, or a key or query is not finite.
    public func keptRows(of statistics: LayerStatistics, head: Int, sinks: Int) throws(CodecError) -> [Int] {
        let rows = statistics.rowCount
        let count = keptCount(ofRows: rows, sinks: sinks)
        let newest = recent ?? min((count + 1) / 2, count - sinks)
        return KeptTokens.rows(
            scores: Array(try accumulatedAttention(of: statistics, head: head).prefix(rows - newest)),
            count: count,
            sinks: sinks,
            newest: newest
        )
    }

    /// The attention that each row of a KV head got: from all queries, or else from those that came with the cache.
    private func accumulatedAttention(of statistics: LayerStatistics, head: Int) throws(CodecError) -> [Double] {
        if let weights = statistics.source.accumulatedAttention { return weights[head] }
        guard let queries = statistics.source.queries else {
            throw CodecError(
                .missingQueries,
                layer: statistics.layer,
                "h2o keeps tokens that the prompt's queries attended to, and none came with the cache; make the cache by "
                    + "snapshot --model, which has them all, export it with queries (layers.N.queries, as "
                    + "Tools/export-cache does; a query profile is not enough), or take keydiff or streaming, which need "
                    + "none"
            )
        }
        return try WindowAttention(statistics, head: head, queries: queries).weights
    }
}
