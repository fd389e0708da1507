public import KVCacheCodecs
public import KVCacheModel

/// Measures what compression cost: errors of keys, values, scores and attention output.
public struct CacheComparison: Sendable {
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
    /// `QualityMeasurement.maximumQueries` are taken. While it runs, OpenBLAS works on one thread per caller.
    ///
    /// - Throws: `CancellationError` if the task is cancelled.
    public func measure(progress: ProgressHandler? = nil) async throws -> CompressionQuality {
        var measurement = QualityMeasurement()
        for index in original.layers.indices {
            try await measurement.add(original.layers[index], compressed: compressed.layers[index])
            progress?(Double(index + 1) / Double(original.layers.count))
        }
        return measurement.quality
    }
}
