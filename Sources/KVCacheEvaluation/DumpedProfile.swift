public import ComputeRuntime
internal import EngineFormats
public import KVCacheModel
internal import LlamaDecoder

/// A model's profile from caches that an engine dumped, without the model: mean squared queries, and bases weighted by how
/// much channels vary, since what errors cost is not known.
///
/// Source: Formats/profile.md, "From dumps".
public struct DumpedProfile: Sendable {
    /// The profile of every layer.
    public let layers: [LayerProfile]
    public let geometry: CacheGeometry
    /// The model's, and how the profile was made.
    public let metadata: [String: String]
    /// Whether keys were turned back by their rotary embedding: false where the dumps say of none, and where layers have
    /// no values, of whose keys only a part may be turned.
    public let undoesRotation: Bool
    /// Whether queries, or their mean squares, came along; otherwise all mean squares are 1.
    public let hasQueries: Bool

    /// - Parameters:
    ///   - paths: the dumps' names, for errors.
    ///   - digests: their SHA-256 digests, in hex.
    ///   - unit: the archives' units, with all their components; nil for what is best for the cache's shape.
    ///   - cache: reads the dump of a number, best of a mapped file: all are kept, and used layer by layer.
    /// - Throws: `EvaluationError` if dumps are of different models, lack tokens, or have numbers that bases can't be made of; `ModelError` if their rotary embedding
    ///   is none that is known; what `cache` throws; `MemoryError`, `CancellationError`.
    public init(
        paths: [String],
        digests: [String],
        unit: BasisUnit? = nil,
        progress: ProgressHandler? = nil,
        cache: (Int) async throws -> KVCache
    ) async throws {
        precondition(!paths.isEmpty, "a profile is made of dumps")
        let first = try await cache(0)
        let unit = unit ?? BasisUnit.best(for: first.geometry, parameterCount: nil).unit
        let frequencies = try Self.frequencies(first, path: paths[0])
        let maker: BasisMaker
        do {
            maker = try BasisMaker(geometry: first.geometry, frequencies: frequencies, unit: unit)
        } catch {
            throw EvaluationError(path: paths[0], error.message)
        }
        var caches: [KVCache] = []
        var squares = QuerySquares(first.geometry)
        for (index, path) in paths.enumerated() {
            let cache = index == 0 ? first : try await cache(index)
            try Self.check(cache, like: first, path: path)
            try squares.add(cache, path: path)
            caches.append(cache)
        }
        let means = squares.means
        let plain = first.geometry.layers.enumerated().map { layer, shape in
            shape.isEmpty
                ? LayerProfile.empty
                : LayerProfile(
                    meanSquaredQueries: means?[layer].map { Float($0) }
                        ?? [Float](repeating: 1, count: shape.kvHeads * shape.keyDimension)
                )
        }
        let bases = try await maker.bases(
            of: zip(caches, paths).map { BasisPrefix($0, path: $1) },
            profile: plain,
            byteLimit: nil,
            progress: progress
        ) { dump, layers, _ in
            Array(caches[dump].layers[layers])
        }
        layers = zip(plain, bases).map { $0.withBases($1) }
        geometry = first.geometry
        undoesRotation = frequencies.contains { !$0.isEmpty }
        hasQueries = means != nil
        typealias Key = ModelProfile.MetadataKey
        metadata = first.metadata
            .filter { CacheIdentity.includes($0.key) || $0.key == "producer" }
            .merging([
                Key.bases: unit.rawValue,
                Key.basesTexts: digests.joined(separator: ","),
                Key.basesPrefixes: "\(paths.count)",
                Key.basesWeights: BasisMaker.weightsByVariances,
            ]) { $1 }
    }

    /// What each layer's rotary pairs are turned by.
    private static func frequencies(_ cache: KVCache, path: String) throws(ModelError) -> [[Float]] {
        try cache.geometry.layers.map { (layer) throws(ModelError) in
            guard layer.valueDimension > 0 else { return [] }
            let rotary = try RotaryEmbedding(
                metadata: cache.metadata,
                headDimension: layer.keyDimension,
                path: path
            )
            return rotary?.frequencies(tokenCount: cache.tokenCount) ?? []
        }
    }

    /// Checks that a dump is of the first one's model, and that its layers have all tokens or the last ones.
    private static func check(_ cache: KVCache, like first: KVCache, path: String) throws(EvaluationError) {
        if let mismatch = CacheIdentity(geometry: first.geometry, metadata: first.metadata)
            .mismatch(with: CacheIdentity(geometry: cache.geometry, metadata: cache.metadata))
        {
            throw EvaluationError(
                path: path,
                "has another \(mismatch.name) (\(mismatch.right.prefix(32))) than the first dump "
                    + "(\(mismatch.left.prefix(32))); pass dumps of one model"
            )
        }
        let layer = cache.layers.firstIndex { if case .listed = $0.held { true } else { false } }
        if let layer {
            throw EvaluationError(
                path: path,
                "layer \(layer) lacks tokens between others; bases are made from caches that no tokens were dropped from"
            )
        }
    }
}

/// The mean squared queries of dumps.
private struct QuerySquares {
    private var sums: [[Double]]
    private var count = 0
    private var isKnown = true

    init(_ geometry: CacheGeometry) {
        sums = geometry.layers.map { [Double](repeating: 0, count: $0.kvHeads * $0.keyDimension) }
    }

    /// Adds a dump's; one without any makes all unknown.
    mutating func add(_ cache: KVCache, path: String) throws(EvaluationError) {
        count += 1
        for (layer, source) in cache.layers.enumerated() where !source.isEmpty {
            guard let squares = Self.squares(source) else {
                isKnown = false
                return
            }
            guard squares.allSatisfy({ Float($0).isFinite }) else {
                throw EvaluationError(
                    path: path,
                    "layer \(layer) has queries that are not finite, or too large; bases need others"
                )
            }
            for (channel, square) in squares.enumerated() { sums[layer][channel] += square }
        }
    }

    /// The mean over dumps; nil where one has no queries.
    var means: [[Double]]? { isKnown && count > 0 ? sums.map { $0.map { $0 / Double(count) } } : nil }

    /// The mean squared query of every KV head and channel: those that came along, or those of the queries that did.
    private static func squares(_ layer: KVCacheLayer) -> [Double]? {
        if let profile = layer.profile { return profile.meanSquaredQueries.map { Double($0) } }
        guard let queries = layer.queries, queries.tokens > 0 else { return nil }
        let dimension = queries.headDimension
        let group = queries.heads / layer.keys.heads
        var squares = [Double](repeating: 0, count: layer.keys.heads * dimension)
        for head in 0..<queries.heads {
            let rows = unsafe [Float](unsafeUninitializedCapacity: queries.tokens * dimension) { buffer, filled in
                if let base = buffer.baseAddress {
                    unsafe queries.widenRows(head: head, from: 0, count: queries.tokens, into: base)
                }
                filled = queries.tokens * dimension
            }
            for (place, number) in rows.enumerated() {
                squares[head / group * dimension + place % dimension] += Double(number) * Double(number)
            }
        }
        return squares.map { $0 / Double(group * queries.tokens) }
    }
}
