public import CachePacking
public import KVCacheCodecs
internal import KVCacheModel

/// KeyDiff: keeps the tokens whose keys are least like the others, whatever will be asked.
///
/// Source: arXiv 2504.15364, section 3, with differences pooled over tokens next to each other as SnapKV pools votes;
/// Formats/selection.md.
public struct KeyDiffCodec: TokenSelectionStage {
    public static let defaultRecent = 32
    public static let defaultKernel = TokenPooling.defaultKernel

    /// How many tokens stay, the newest included.
    public let kept: KeptTokens
    /// The newest tokens, which always stay.
    public let recent: Int
    /// Over how many tokens next to each other differences are pooled; odd. 1 is the paper's own.
    public var kernel: Int { pooling.kernel }
    private let pooling: TokenPooling

    /// - Throws: `RecipeError` if a number is out of range.
    public init(
        kept: KeptTokens,
        recent: Int = defaultRecent,
        kernel: Int = defaultKernel
    ) throws(RecipeError) {
        try self.init(
            StageParameters(
                stage: Self.registration.name,
                text: "\(kept.parameter.text),recent=\(recent),kernel=\(kernel)",
                allowed: Self.registration.parameterNames
            )
        )
    }

    init(_ parameters: StageParameters) throws(RecipeError) {
        kept = try KeptTokens(parameters)
        recent = try parameters.integer("recent", in: 0...BlockShape.residualWindows.upperBound) ?? Self.defaultRecent
        pooling = try TokenPooling(parameters)
        try kept.check(newest: recent, name: "recent", stage: parameters.stage)
    }

    /// What recipes and files know the codec by.
    public static let registration = CodecRegistration(
        number: 10,
        name: "keydiff",
        role: .tokenSelection,
        parameterNames: KeptTokens.parameterNames + ["recent", "kernel"],
        example: "keydiff(keep=0.5)",
        help:
            "KeyDiff: keeps this share of tokens, or tokens=1024, those whose keys differ most from the mean of all, and "
            + "the last recent=32; kernel=7; needs no queries"
    ) { (parameters) throws(RecipeError) in try KeyDiffCodec(parameters) }

    public var codec: CodecRegistration { Self.registration }

    public var parameters: [StageParameter] {
        var result = [kept.parameter]
        if recent != Self.defaultRecent { result.append(StageParameter("recent", recent)) }
        return result + pooling.parameter
    }

    public func keptCount(ofRows rows: Int, sinks: Int) -> Int {
        kept.count(ofRows: rows, sinks: sinks, newest: recent)
    }

    /// The rows whose keys are least similar to the mean of all directions, and the newest.
    ///
    /// - Throws: `CodecError` if a key is not finite, or there is no memory.
    public func keptRows(of statistics: LayerStatistics, head: Int, sinks: Int) throws(CodecError) -> [Int] {
        let rows = statistics.rowCount
        let keys = try FiniteRows(statistics, keysOfHead: head)
        return KeptTokens.rows(
            scores: pooling.pooled(Self.similarities(keys).prefix(rows - recent).map { -$0 }),
            count: keptCount(ofRows: rows, sinks: sinks),
            sinks: sinks,
            newest: recent
        )
    }

    /// The cosine similarity of each key to the sum of all directions, times the length of that sum.
    private static func similarities(_ keys: FiniteRows) -> [Double] {
        var sum = [Double](repeating: 0, count: keys.dimension)
        var lengths: [Double] = []
        for row in 0..<keys.count {
            var squares = 0.0
            for channel in 0..<keys.dimension { squares += Double(keys[row, channel]) * Double(keys[row, channel]) }
            // A key of zeros has no direction.
            let length = squares > 0 ? squares.squareRoot() : .infinity
            for channel in 0..<keys.dimension { sum[channel] += Double(keys[row, channel]) / length }
            lengths.append(length)
        }
        return lengths.enumerated().map { row, length in
            var product = 0.0
            for channel in 0..<keys.dimension { product += Double(keys[row, channel]) * sum[channel] }
            return product / length
        }
    }
}
