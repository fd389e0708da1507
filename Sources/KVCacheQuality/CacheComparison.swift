public import CachePacking
public import ComputeRuntime
public import KVCacheModel
public import KVSnapshots

/// Measures what compression cost: errors of keys, values, scores and attention output.
public struct CacheComparison: Sendable {
    /// The cache in full precision.
    public let original: KVCache
    /// A layer of the cache that was made of it.
    private let compressedLayer: @Sendable (Int) async throws -> CompressedLayer

    /// Compares with a cache in memory.
    ///
    /// - Throws: `CodecError` naming what the two caches don't share: geometry, type, number of tokens, model, or
    ///   token ids.
    public init(original: KVCache, compressed: CompressedCache) throws(CodecError) {
        try Self.check(
            original,
            geometry: compressed.geometry,
            tokenCount: compressed.tokenCount,
            elementType: compressed.shape.elementType,
            metadata: compressed.metadata,
            tokens: compressed.tokens
        )
        self.original = original
        compressedLayer = { compressed.layers[$0] }
    }

    /// Compares with a snapshot, of which one layer at a time is read.
    ///
    /// - Throws: `CodecError` as above, or what is wrong with the snapshot.
    public init(original: KVCache, snapshot: SnapshotReader) throws {
        try Self.check(
            original,
            geometry: snapshot.geometry,
            tokenCount: snapshot.header.tokenCount,
            elementType: snapshot.header.shape.elementType,
            metadata: snapshot.metadata,
            tokens: try snapshot.tokens()
        )
        self.original = original
        let layers = try snapshot.layers()
        compressedLayer = { try await layers.layer($0) }
    }

    private static func check(
        _ original: KVCache,
        geometry: CacheGeometry,
        tokenCount: Int,
        elementType: ElementType,
        metadata: [String: String],
        tokens: [Int32]?
    ) throws(CodecError) {
        func check(_ name: String, _ left: some Equatable, _ right: some Equatable, same: Bool) throws(CodecError) {
            guard !same else { return }
            throw CodecError(.shapeMismatch, "not the same \(name): \(left) in the original, \(right) in the snapshot")
        }
        let identities = (
            CacheIdentity(geometry: original.geometry, metadata: original.metadata),
            CacheIdentity(geometry: geometry, metadata: metadata)
        )
        if let mismatch = identities.0.mismatch(with: identities.1) {
            try check(mismatch.name, mismatch.left, mismatch.right, same: false)
        }
        try check(
            "number of tokens",
            original.tokenCount,
            tokenCount,
            same: original.tokenCount == tokenCount
        )
        let types = (original.elementType, elementType)
        try check("element type", types.0.name, types.1.name, same: types.0 == types.1)
        if let left = original.tokens, let right = tokens,
            let place = zip(left, right).enumerated().first(where: { $0.element.0 != $0.element.1 })
        {
            try check("id of token \(place.offset)", place.element.0, place.element.1, same: false)
        }
    }

    /// Measures all layers, on all processors. Scores and attention need the original's queries, of which the last
    /// `QualityMeasurement.maximumQueries` are taken. While it runs, OpenBLAS works on one thread per caller.
    ///
    /// - Throws: `CancellationError` if the task is cancelled; what is wrong with the snapshot, if it is one.
    public func measure(progress: ProgressHandler? = nil) async throws -> CompressionQuality {
        var measurement = QualityMeasurement()
        for index in original.layers.indices {
            try await measurement.add(original.layers[index], compressed: compressedLayer(index))
            progress?(Double(index + 1) / Double(original.layers.count))
        }
        return measurement.quality
    }
}
