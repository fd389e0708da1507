internal import ByteStorage
internal import CompressedAttention
public import KVCacheCodecs
public import KVCacheModel

/// Measures what compression cost: errors of keys, values, scores and attention output.
public struct CacheComparison: Sendable {
    /// Tokens that are compared at a time.
    static let tileTokens = TileAttention.maximumTokens
    /// The most queries of a head that are compared, the last ones: a dump may have one for every token.
    public static let maximumQueries = 256

    /// The cache in full precision.
    public let original: KVCache
    /// The cache that was made of it.
    public let compressed: CompressedCache

    /// - Throws: `CodecError` naming what the two caches don't share: geometry, type, number of tokens, model, or
    ///   token ids.
    public init(original: KVCache, compressed: CompressedCache) throws(CodecError) {
        func check(_ name: String, _ left: some Equatable, _ right: some Equatable, same: Bool) throws(CodecError) {
            guard !same else { return }
            throw CodecError(.shapeMismatch, "the \(name) differ: \(left) in the original, \(right) in the snapshot")
        }
        let (a, b) = (original.geometry, compressed.geometry)
        try check("numbers of layers", a.layers, b.layers, same: a.layers == b.layers)
        try check("numbers of KV heads", a.kvHeads, b.kvHeads, same: a.kvHeads == b.kvHeads)
        try check("head dimensions", a.headDimension, b.headDimension, same: a.headDimension == b.headDimension)
        try check(
            "numbers of tokens",
            original.tokenCount,
            compressed.tokenCount,
            same: original.tokenCount == compressed.tokenCount
        )
        let types = (original.elementType, compressed.shape.elementType)
        try check("element types", types.0.name, types.1.name, same: types.0 == types.1)
        if let key = CacheIdentity.mismatch(original.metadata, compressed.metadata) {
            try check("values of \(key)", original.metadata[key] ?? "", compressed.metadata[key] ?? "", same: false)
        }
        if let left = original.tokens, let right = compressed.tokens,
            let place = zip(left, right).enumerated().first(where: { $0.element.0 != $0.element.1 })
        {
            try check("ids of token \(place.offset)", place.element.0, place.element.1, same: false)
        }
        self.original = original
        self.compressed = compressed
    }

    /// Measures all layers, on all processors. Scores and attention need the original's queries, of which the last
    /// `maximumQueries` are taken. While it runs, OpenBLAS works on one thread per caller.
    ///
    /// - Throws: `CancellationError` if the task is cancelled.
    public func measure(progress: ProgressHandler? = nil) async throws -> CompressionQuality {
        let products = SingleThreadedProducts()
        defer { extendLifetime(products) }
        let heads = original.geometry.kvHeads
        let slots = Slots<ErrorSums>(count: original.geometry.layers * heads)
        try await forEachConcurrently(count: original.geometry.layers * heads, progress: progress) { unit in
            slots[unit] = measure(layer: unit / heads, head: unit % heads)
        }
        let sums = slots.values
        var total = ErrorSums()
        var layers: [CompressionQuality.Errors] = []
        for layer in 0..<original.geometry.layers {
            var layerSums = ErrorSums()
            for head in 0..<heads { layerSums.add(sums[layer * heads + head]) }
            layers.append(layerSums.errors)
            total.add(layerSums)
        }
        return CompressionQuality(layers: layers, total: total.errors)
    }

    private func measure(layer: Int, head: Int) -> ErrorSums {
        let source = original.layers[layer]
        let packed = compressed.layers[layer]
        let dimension = original.geometry.headDimension
        let tile = Self.tileTokens
        var buffers = [[Float]](repeating: [Float](repeating: 0, count: tile * dimension), count: 4)
        let observation = source.queries.map { queries in
            let last = max(queries.tokens - Self.maximumQueries, 0)..<queries.tokens
            return Observation(queries: queries[tokens: last], head: head, kvHeads: source.keys.heads)
        }
        let exact = observation.map { TileAttention(queries: $0.rows, headDimension: dimension) }
        let lossy = observation.map { TileAttention(queries: $0.rows, headDimension: dimension) }
        var sums = ErrorSums()
        if observation != nil { sums.scores = ErrorSums.Pair() }
        for start in stride(from: 0, to: original.tokenCount, by: tile) {
            let count = min(tile, original.tokenCount - start)
            widen(source.keys, head: head, from: start, count: count, into: &buffers[0])
            widen(source.values, head: head, from: start, count: count, into: &buffers[1])
            restore(packed, .keys, head: head, tokens: start..<start + count, into: &buffers[2])
            restore(packed, .values, head: head, tokens: start..<start + count, into: &buffers[3])
            for index in 0..<count * dimension {
                sums.keys.add(buffers[0][index], buffers[2][index])
                sums.values.add(buffers[1][index], buffers[3][index])
            }
            guard let observation else { continue }
            let visible = observation.visibleCounts(tile: start..<start + count, tokenCount: original.tokenCount)
            exact?.add(keys: buffers[0], values: buffers[1], count: count, visible: visible)
            lossy?.add(keys: buffers[2], values: buffers[3], count: count, visible: visible)
            guard let exactScores = exact?.scores, let lossyScores = lossy?.scores else { continue }
            for (row, seen) in visible.enumerated() {
                for index in row * count..<row * count + seen {
                    sums.scores?.add(exactScores[index], lossyScores[index])
                }
            }
        }
        if let exact, let lossy {
            var pair = ErrorSums.Pair()
            for (left, right) in zip(exact.result, lossy.result) { pair.add(left, right) }
            sums.attention = pair
        }
        return sums
    }

    private func widen(_ tensor: KVTensor, head: Int, from token: Int, count: Int, into buffer: inout [Float]) {
        unsafe buffer.withUnsafeMutableBufferPointer { pointer in
            guard let base = pointer.baseAddress else { return }
            unsafe tensor.widenRows(head: head, from: token, count: count, into: base)
        }
    }

    private func restore(
        _ layer: CompressedLayer,
        _ part: CachePart,
        head: Int,
        tokens: Range<Int>,
        into buffer: inout [Float]
    ) {
        var elements = buffer.mutableSpan
        var bytes = unsafe elements.mutableBytes
        layer.decompress(part, head: head, tokens: tokens, as: .float32, into: &bytes)
    }
}

/// The observation queries of a KV head's group: all rows of its query heads.
private struct Observation {
    /// `[group * window, headDimension]`.
    let rows: [Float]
    private let rowCount: Int
    private let window: Int

    init(queries: KVTensor, head: Int, kvHeads: Int) {
        let group = queries.heads / kvHeads
        let size = queries.tokens * queries.headDimension
        var rows = [Float](repeating: 0, count: group * size)
        unsafe rows.withUnsafeMutableBufferPointer { pointer in
            guard let base = pointer.baseAddress else { return }
            for member in 0..<group {
                unsafe queries.widenRows(
                    head: head * group + member,
                    from: 0,
                    count: queries.tokens,
                    into: base + member * size
                )
            }
        }
        self.rows = rows
        rowCount = group * queries.tokens
        window = queries.tokens
    }

    /// How many tokens of a tile each row sees: query j of the window belongs to token `tokenCount - window + j`.
    func visibleCounts(tile: Range<Int>, tokenCount: Int) -> [Int] {
        (0..<rowCount).map { row in
            let end = tokenCount - window + row % window + 1
            return min(max(end - tile.lowerBound, 0), tile.count)
        }
    }
}
