internal import CThinkKernels
public import CachePacking
internal import ComputeRuntime
public import KVCacheModel

/// What stages may look at when they decide about one layer; computed when first asked for.
public struct LayerStatistics: Sendable {
    public let layer: Int
    public let geometry: LayerGeometry
    /// The layer itself: keys, values, and the queries or the profile that came with it.
    public let source: KVCacheLayer
    /// Places of a block, by which keys will be grouped.
    public let blockLength: Int
    /// Tokens of the cache; the layer may hold fewer.
    public let tokenCount: Int
    /// Of keys and of values, head by head.
    private var sums: [CachePart: [ChannelSums?]] = [:]

    /// The statistics of `source`, which is the cache's layer `layer`.
    ///
    /// - Parameter tokenCount: tokens of the cache; the layer may hold fewer.
    public init(
        layer: Int,
        geometry: LayerGeometry,
        source: KVCacheLayer,
        tokenCount: Int,
        blockLength: Int = Recipe.defaultBlockLength
    ) {
        self.layer = layer
        self.geometry = geometry
        self.source = source
        self.tokenCount = tokenCount
        self.blockLength = blockLength
    }

    public var elementType: ElementType { source.keys.elementType }

    /// Which of the cache's tokens the layer has.
    public var held: HeldTokens { source.held }

    /// Rows of each KV head: fewer than the cache has tokens where the layer doesn't hold them all.
    public var rowCount: Int { source.keys.tokens }

    /// Which of the cache's tokens a row of a KV head is of.
    public func token(ofRow row: Int, head: Int) -> Int {
        held.token(ofRow: row, head: head, firstToken: tokenCount - rowCount)
    }

    /// The statistics of some rows of the layer.
    ///
    /// - Parameter rows: which of each KV head, ascending, as many of each.
    /// - Throws: `CodecError` if there is no memory for them.
    func keeping(_ rows: [[Int]]) throws(CodecError) -> LayerStatistics {
        do {
            return LayerStatistics(
                layer: layer,
                geometry: geometry,
                source: try source.keeping(rows, tokenCount: tokenCount),
                tokenCount: tokenCount,
                blockLength: blockLength
            )
        } catch {
            throw CodecError(error, layer: layer)
        }
    }

    /// The mean squared key or value of every channel of a KV head over the head's rows.
    ///
    /// - Throws: `CodecError` if a number is not finite.
    public mutating func meanSquares(_ part: CachePart, head: Int) throws(CodecError) -> [Double] {
        try sums(part, head: head).squares.map { $0 / Double(rowCount) }
    }

    /// The mean key or value of every channel of a KV head over the head's rows.
    ///
    /// - Throws: `CodecError` if a number is not finite.
    public mutating func means(_ part: CachePart, head: Int) throws(CodecError) -> [Double] {
        try sums(part, head: head).sums.map { $0 / Double(rowCount) }
    }

    /// The mean key or value of every channel of a KV head over its rows from one on; zeros if there are none.
    ///
    /// - Throws: `CodecError` if a number is not finite.
    public func means(_ part: CachePart, head: Int, from first: Int) throws(CodecError) -> [Double] {
        let tensor = source[part]
        guard first < tensor.tokens else { return [Double](repeating: 0, count: tensor.headDimension) }
        let rows = tensor[tokens: first..<tensor.tokens]
        let sums = ChannelSums(rows, head: head)
        guard sums.areFinite else { throw unsupported(part, head: head) }
        return sums.sums.map { $0 / Double(rows.tokens) }
    }

    /// The query profile of a KV head: what came as one with the cache, or else the mean squared query of every channel
    /// over the last `window` queries and the query heads of the group; nil if neither came.
    ///
    /// Queries are those of the cache's last tokens, whichever tokens the layer holds.
    ///
    /// - Throws: `CodecError` if a query is not finite.
    public func queryMeanSquares(head: Int, window: Int) throws(CodecError) -> [Double]? {
        if let profile = source.profile { return channels(.keys, of: profile.meanSquaredQueries, head: head) }
        return try ownQueryMeanSquares(head: head, window: window)
    }

    /// The same of the queries that came with the cache, also where a profile did.
    ///
    /// - Throws: `CodecError` if a query is not finite.
    package func ownQueryMeanSquares(head: Int, window: Int) throws(CodecError) -> [Double]? {
        guard let queries = source.queries else { return nil }
        let dimension = geometry.keyDimension
        let group = queries.heads / geometry.kvHeads
        let rows = max(queries.tokens - window, 0)..<queries.tokens
        var total = [Double](repeating: 0, count: dimension)
        for queryHead in head * group..<(head + 1) * group {
            let sums = ChannelSums(queries[tokens: rows], head: queryHead)
            guard sums.areFinite else {
                throw CodecError(
                    .unsupportedValue,
                    layer: layer,
                    head: head,
                    "a query of query head \(queryHead) is not finite or too large; export the cache again"
                )
            }
            for channel in 0..<dimension { total[channel] += sums.squares[channel] }
        }
        return total.map { $0 / Double(rows.count * group) }
    }

    /// What errors of a KV head's keys cost, channel by channel, where the model's profile says it; else nil.
    public func keySensitivities(head: Int) -> [Double]? {
        source.profile?.sensitivity.map { channels(.keys, of: $0.keys, head: head) }
    }

    /// How much the model's output projection weighs each value channel of a KV head, where the model's profile or else
    /// the layer says it; nil if neither does.
    public func outputWeights(head: Int) -> [Double]? {
        (source.profile?.outputWeights ?? source.outputWeights).map { channels(.values, of: $0, head: head) }
    }

    /// A KV head's part of numbers that there are for every channel.
    private func channels(_ part: CachePart, of numbers: [Float], head: Int) -> [Double] {
        let dimension = geometry.dimension(part)
        return numbers[head * dimension..<(head + 1) * dimension].map(Double.init)
    }

    private mutating func sums(_ part: CachePart, head: Int) throws(CodecError) -> ChannelSums {
        if let known = sums[part]?[head] { return known }
        let new = ChannelSums(source[part], head: head)
        guard new.areFinite else { throw unsupported(part, head: head) }
        sums[part, default: [ChannelSums?](repeating: nil, count: geometry.kvHeads)][head] = new
        return new
    }

    /// What is wrong with keys or values that have no sums, or that can't be quantized.
    ///
    /// - Parameter isSupported: whether a number is.
    package func unsupported(
        _ part: CachePart,
        head: Int,
        isSupported: (Float) -> Bool = \.isFinite
    ) -> CodecError {
        guard let found = first(part, head: head, isSupported: isSupported) else {
            let message = "the \(Self.name(part))s are too large to be added up"
            return CodecError(.unsupportedValue, layer: layer, head: head, message)
        }
        return found.error(layer: layer, token: token(ofRow: found.row, head: found.head))
    }

    /// Checks that all keys and values are finite.
    ///
    /// - Parameter remedy: what to do about those that are not.
    /// - Throws: `CodecError` naming the first that is not.
    package func checkFinite(remedy: String) throws(CodecError) {
        for part in CachePart.allCases {
            for head in 0..<geometry.kvHeads {
                guard let found = first(part, head: head, isSupported: \.isFinite) else { continue }
                throw found.error(layer: layer, token: token(ofRow: found.row, head: head), remedy: remedy)
            }
        }
    }

    private func first(_ part: CachePart, head: Int, isSupported: (Float) -> Bool) -> UnsupportedValue? {
        UnsupportedValue.first(in: source[part], head: head, name: Self.name(part), isSupported: isSupported)
    }

    private static func name(_ part: CachePart) -> String { part == .keys ? "key" : "value" }
}

/// Sums and sums of squares per channel over a head's rows.
private struct ChannelSums: Sendable {
    var sums: [Double]
    var squares: [Double]

    init(_ tensor: KVTensor, head: Int) {
        sums = [Double](repeating: 0, count: tensor.headDimension)
        squares = sums
        unsafe tensor.withRows(head: head) { rows in
            unsafe Kernels.best.add_channel_sums(rows, tensor.tokens, tensor.headDimension, &sums, &squares)
        }
    }

    var areFinite: Bool { sums.allSatisfy(\.isFinite) && squares.allSatisfy(\.isFinite) }
}
