internal import ByteStorage
internal import COpenBLAS
internal import ComputeRuntime
internal import Foundation
internal import KVCacheModel

/// Makes the bases of a model's profile from caches of prefixes, one after another.
///
/// Source: Formats/profile.md, "How bases are made".
final class BasisMaker {
    /// What metadata says of the channels' weights.
    static let weightsBySensitivities = "sensitivities"
    static let weightsByVariances = "variances"

    /// What a covariance is of.
    private struct Group {
        let unit: ArchiveUnit
        /// Whether keys are those before rotary embedding.
        let areTurned: Bool
        var covariance: VectorCovariance?
    }

    private let geometry: CacheGeometry
    /// By layer; none for layers without rotary embedding.
    private let frequencies: [[Float]]
    private var archives: [Group]
    /// By layer and KV head, as cached.
    private var keys: [[Group]]
    private var values: [[Group]]
    /// The sum over caches of each pair's mean squared cosine.
    private var squaredCosines: [[Double]]
    private var cacheCount = 0

    /// - Parameters:
    ///   - frequencies: what each layer's rotary pairs are turned by per position, in radians.
    /// - Throws: `MemoryError` if there is no memory for the covariances.
    init(geometry: CacheGeometry, frequencies: [[Float]], unit: BasisUnit) throws(MemoryError) {
        self.geometry = geometry
        self.frequencies = frequencies
        func group(_ unit: ArchiveUnit, areTurned: Bool) throws(MemoryError) -> Group {
            let covariance = try VectorCovariance(channelCount: unit.channelCount(in: geometry))
            return Group(unit: unit, areTurned: areTurned, covariance: covariance)
        }
        func groups(_ part: CachePart) throws(MemoryError) -> [[Group]] {
            try geometry.layers.enumerated().map { (layer, shape) throws(MemoryError) in
                try (0..<(shape.dimension(part) > 0 ? shape.kvHeads : 0)).map { (head) throws(MemoryError) in
                    let unit = ArchiveUnit(
                        layers: layer..<layer + 1,
                        heads: head..<head + 1,
                        hasKeys: part == .keys,
                        hasValues: part == .values
                    )
                    return try group(unit, areTurned: false)
                }
            }
        }
        archives = try unit.units(of: geometry).map { (unit) throws(MemoryError) in
            try group(unit, areTurned: true)
        }
        keys = try groups(.keys)
        values = try groups(.values)
        squaredCosines = frequencies.map { [Double](repeating: 0, count: $0.count) }
    }

    // MARK: - Covariances

    /// Adds a prefix's cache, of the maker's shape, whose layers have all tokens or the last ones.
    ///
    /// - Throws: `EvaluationError` if it has too few tokens, or numbers that are not finite; `MemoryError`.
    func add(_ cache: KVCache) throws {
        let singleThreaded = SingleThreadedProducts()
        defer { extendLifetime(singleThreaded) }
        try SingleThreadedProducts.reserve(callers: 1)
        var turns: [RotaryTurns] = []
        for layer in geometry.layers.indices {
            let turn = RotaryTurns(
                positions: positions(of: cache, layer: layer),
                frequencies: frequencies[layer]
            )
            for (pair, cosine) in turn.meanSquaredCosines(of: Self.countedRows(cache, layer: layer)).enumerated() {
                squaredCosines[layer][pair] += cosine
            }
            turns.append(turn)
        }
        for group in archives { try add(cache, to: group, turns: turns) }
        for group in (keys + values).joined() { try add(cache, to: group, turns: turns) }
        cacheCount += 1
    }

    private func add(_ cache: KVCache, to group: Group, turns: [RotaryTurns]) throws {
        try Task.checkCancellation()
        guard let covariance = group.covariance else { preconditionFailure("bases are made after the last cache") }
        let vectors = try vectors(of: group, in: cache, turns: turns)
        guard try covariance.add(vectors) else {
            throw EvaluationError(
                "layer \(group.unit.layers.lowerBound) has keys or values that are not finite; bases need finite ones"
            )
        }
    }

    /// How many of a layer's first rows are left out: attention sinks, where the layer has the first tokens.
    private static func firstRow(_ cache: KVCache, layer: Int) -> Int {
        cache.layers[layer].held == .all ? ProfileSettings.firstTokens : 0
    }

    /// The rows whose positions count where sensitivities are turned: those that may have errors.
    private static func countedRows(_ cache: KVCache, layer: Int) -> Range<Int> {
        let rows = cache.layers[layer].keys.tokens
        let first = min(firstRow(cache, layer: layer), rows)
        let last = rows - ProfileSettings.lastTokens
        return first..<(last > first ? last : rows)
    }

    private func positions(of cache: KVCache, layer: Int) -> [Int] {
        let first = cache.tokenCount - cache.layers[layer].keys.tokens
        let tokens = first..<cache.tokenCount
        guard let positions = cache.positions else { return Array(tokens) }
        return positions[tokens].map { Int($0) }
    }

    /// A group's vectors, `[tokens][channels]`.
    private func vectors(of group: Group, in cache: KVCache, turns: [RotaryTurns]) throws -> DoubleBuffer {
        let unit = group.unit
        let width = unit.channelCount(in: geometry)
        let count = unit.layers.reduce(Int.max) { least, layer in
            min(least, cache.layers[layer].keys.tokens - Self.firstRow(cache, layer: layer))
        }
        guard count > 1 else {
            throw EvaluationError(
                "layer \(unit.layers.lowerBound) has \(cache.layers[unit.layers.lowerBound].keys.tokens) tokens, and "
                    + "bases take at least \(ProfileSettings.firstTokens + 2)"
            )
        }
        let vectors = try DoubleBuffer(count: count * width)
        var column = 0
        for layer in unit.layers {
            for part in unit.parts {
                let tensor = cache.layers[layer][part]
                let dimension = tensor.headDimension
                let first = tensor.tokens - count
                for head in unit.heads {
                    let rows = unsafe [Float](unsafeUninitializedCapacity: count * dimension) { buffer, filled in
                        if let base = buffer.baseAddress {
                            unsafe tensor.widenRows(head: head, from: first, count: count, into: base)
                        }
                        filled = count * dimension
                    }
                    for row in 0..<count {
                        let target = unsafe vectors.pointer(from: row * width + column)
                        for channel in 0..<dimension {
                            unsafe target[channel] = Double(rows[row * dimension + channel])
                        }
                        if part == .keys, group.areTurned {
                            unsafe turns[layer].undo(target, row: first + row)
                        }
                    }
                    column += dimension
                }
            }
        }
        return vectors
    }

    // MARK: - Bases

    /// The bases, for which the covariances are given up.
    ///
    /// - Parameters:
    ///   - profile: what errors of the model's cache cost; where it doesn't say, they cost as much in all channels of a
    ///     layer's keys, or values, by how much these vary.
    ///   - byteLimit: bytes of the archives' bases, of which the components of least variance are left out; nil for all.
    ///   - progress: of the work.
    /// - Returns: the bases of every layer; nil for layers without a cache.
    /// - Throws: `EvaluationError` if they can't be found; `MemoryError`, `CancellationError`.
    func bases(
        profile: [LayerProfile],
        byteLimit: Int?,
        progress: ProgressHandler? = nil
    ) throws -> [LayerBases?] {
        precondition(cacheCount > 0, "bases are made from caches")
        let singleThreaded = SingleThreadedProducts()
        defer { extendLifetime(singleThreaded) }
        try SingleThreadedProducts.reserve(callers: 1)
        let costs = costs(profile)
        func basis(_ group: inout Group) throws -> ComponentBasis {
            try Task.checkCancellation()
            guard let covariance = group.covariance else { preconditionFailure("bases are made once") }
            group.covariance = nil
            return try covariance.basis(weights: costs.weights(of: group.unit, areTurned: group.areTurned))
        }
        var bases: [ComponentBasis] = []
        for index in archives.indices {
            bases.append(try basis(&archives[index]))
            progress?(Double(index + 1) / Double(archives.count + 1))
        }
        if let byteLimit { bases = Self.cut(bases, byteLimit: byteLimit) }
        let units = zip(archives, bases).map { LayerBases.Archive(unit: $0.unit, basis: $1) }
        return try geometry.layers.indices.map { layer in
            if geometry.layers[layer].isEmpty { return nil }
            return LayerBases(
                archives: units.filter { $0.unit.layers.lowerBound == layer },
                rotaryFrequencies: frequencies[layer],
                keys: try keys[layer].indices.map { try basis(&keys[layer][$0]) },
                values: try values[layer].indices.map { try basis(&values[layer][$0]) }
            )
        }
    }

    /// Leaves out the components of least variance, but one of each basis.
    static func cut(_ bases: [ComponentBasis], byteLimit: Int) -> [ComponentBasis] {
        struct Component {
            let basis: Int
            let place: Int
            let variance: Float
            let byteCount: Int
        }
        let components = bases.enumerated().flatMap { index, basis in
            let byteCount = BasisUnit.componentBytes(channels: basis.channelCount)
            return basis.variances.enumerated().map {
                Component(basis: index, place: $0, variance: $1, byteCount: byteCount)
            }
        }
        let sorted = components.sorted {
            ($1.variance, $0.basis, $0.place) < ($0.variance, $1.basis, $1.place)
        }
        var counts = [Int](repeating: 1, count: bases.count)
        var byteCount = bases.reduce(0) { $0 + BasisUnit.componentBytes(channels: $1.channelCount) }
        for component in sorted where component.place > 0 {
            byteCount += component.byteCount
            guard byteCount <= byteLimit else { break }
            counts[component.basis] += 1
        }
        return zip(bases, counts).map { basis, count in
            ComponentBasis(
                matrix: basis.matrix[0..<count * basis.channelCount],
                scales: Array(basis.scales[..<count]),
                variances: Array(basis.variances[..<count]),
                weights: basis.weights
            )
        }
    }

    /// What errors cost: as measured, or else by the channels' variances.
    private func costs(_ profile: [LayerProfile]) -> ChannelCosts {
        let layers = geometry.layers.indices
        let squaredCosines = squaredCosines.map { $0.map { $0 / Double(cacheCount) } }
        func sensitivities(_ part: CachePart) -> [[Double]] {
            layers.map { layer in
                if let sensitivity = profile[layer].sensitivity {
                    return (part == .keys ? sensitivity.keys : sensitivity.values).map { Double($0) }
                }
                return uniform(part, layer: layer, profile: profile[layer])
            }
        }
        return ChannelCosts(
            keys: sensitivities(.keys),
            values: sensitivities(.values),
            squaredCosines: squaredCosines,
            geometry: geometry
        )
    }

    /// Sensitivities of a layer's keys or values of which none were measured.
    private func uniform(_ part: CachePart, layer: Int, profile: LayerProfile) -> [Double] {
        let variances = (part == .keys ? keys : values)[layer].flatMap { $0.covariance?.variances ?? [] }
        let mean = variances.reduce(0, +) / Double(max(variances.count, 1))
        let common = mean > 0 ? 1 / mean : 1
        let squares = profile.meanSquaredQueries.map { Double($0) }
        let meanSquare = squares.reduce(0, +) / Double(max(squares.count, 1))
        guard part == .keys, squares.count == variances.count, meanSquare > 0 else {
            return variances.map { _ in common }
        }
        return squares.map { common * $0 / meanSquare }
    }
}

@available(*, unavailable)
extension BasisMaker: Sendable {}
