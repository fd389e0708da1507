public import CachePacking
public import KVCacheCodecs
internal import KVCacheModel

/// SnapKV: keeps the tokens that the prompt's last queries attend to, and those queries' own.
///
/// Source: arXiv 2404.14469, section 4; Formats/selection.md.
public struct SnapKVCodec: TokenSelectionStage {
    public static let defaultObserve = 32
    public static let defaultKernel = TokenPooling.defaultKernel

    /// How many tokens stay, the observation window included.
    public let kept: KeptTokens
    /// The observation window: the last queries, which vote, and the newest tokens, which always stay.
    public let observe: Int
    /// Over how many tokens next to each other votes are pooled; odd.
    public var kernel: Int { pooling.kernel }
    private let pooling: TokenPooling

    /// - Throws: `RecipeError` if a number is out of range.
    public init(
        kept: KeptTokens,
        observe: Int = defaultObserve,
        kernel: Int = defaultKernel
    ) throws(RecipeError) {
        try self.init(
            StageParameters(
                stage: Self.registration.name,
                text: "\(kept.parameter.text),observe=\(observe),kernel=\(kernel)",
                allowed: Self.registration.parameterNames
            )
        )
    }

    init(_ parameters: StageParameters) throws(RecipeError) {
        kept = try KeptTokens(parameters)
        observe =
            try parameters.integer("observe", in: 1...BlockShape.residualWindows.upperBound) ?? Self.defaultObserve
        pooling = try TokenPooling(parameters)
        try kept.check(newest: observe, name: "observe", stage: parameters.stage)
    }

    /// What recipes and files know the codec by.
    public static let registration = CodecRegistration(
        number: 9,
        name: "snapkv",
        role: .tokenSelection,
        parameterNames: KeptTokens.parameterNames + ["observe", "kernel"],
        example: "snapkv(keep=0.5)",
        help: "SnapKV: keeps this share of tokens, or tokens=1024, those that the last observe=32 queries attend to; "
            + "kernel=7"
    ) { (parameters) throws(RecipeError) in try SnapKVCodec(parameters) }

    public var codec: CodecRegistration { Self.registration }

    public var parameters: [StageParameter] {
        var result = [kept.parameter]
        if observe != Self.defaultObserve { result.append(StageParameter("observe", observe)) }
        return result + pooling.parameter
    }

    public var observationWindow: Int? { observe }

    public func keptCount(ofRows rows: Int, sinks: Int) -> Int {
        kept.count(ofRows: rows, sinks: sinks, newest: observe)
    }

    /// The rows of most votes, and the observation window.
    ///
    /// - Throws: `CodecError` if no queries came, or a key or query is not finite.
    public func keptRows(of statistics: LayerStatistics, head: Int, sinks: Int) throws(CodecError) -> [Int] {
        guard let queries = statistics.source.queries else {
            throw CodecError(
                .missingQueries,
                layer: statistics.layer,
                "snapkv keeps tokens that the prompt's last queries attend to, and no queries came with the cache; export "
                    + "it with queries (layers.N.queries, as Tools/export-cache does; a query profile is not enough), "
                    + "or take keydiff or streaming, which need none"
            )
        }
        let observed = queries[tokens: max(queries.tokens - observe, 0)..<queries.tokens]
        let rows = statistics.rowCount
        let attention = try WindowAttention(statistics, head: head, queries: observed)
        return KeptTokens.rows(
            scores: pooling.pooled(attention.weights.prefix(rows - observe)),
            count: keptCount(ofRows: rows, sinks: sinks),
            sinks: sinks,
            newest: observe
        )
    }
}
