internal import ByteStorage
internal import ComputeRuntime
internal import KVCacheModel

/// Makes the bases of a model's profile, unit by unit: of the caches that they are made from, no more is in memory than the
/// layers of one unit in one prefix.
///
/// Source: Formats/profile.md, "How bases are made".
struct BasisMaker: Sendable {
    /// What metadata says of the channels' weights.
    static let weightsBySensitivities = "sensitivities"
    static let weightsByVariances = "variances"

    /// Layers whose bases are made together, and their archives' units.
    struct Run {
        let layers: Range<Int>
        var units: [ArchiveUnit]
    }

    /// What a covariance is of.
    struct Group {
        let unit: ArchiveUnit
        /// Whether it is a unit of archives, whose keys are those before rotary embedding; or a KV head's keys, or values,
        /// as cached.
        let isOfArchive: Bool
        let covariance: VectorCovariance
    }

    let geometry: CacheGeometry
    /// By layer; none for layers without rotary embedding.
    let frequencies: [[Float]]
    private let runs: [Run]

    /// - Parameters:
    ///   - frequencies: what each layer's rotary pairs are turned by per position, in radians.
    /// - Throws: `EvaluationError` if a profile can't have such units, or frequencies.
    init(geometry: CacheGeometry, frequencies: [[Float]], unit: BasisUnit) throws(EvaluationError) {
        self.geometry = geometry
        self.frequencies = frequencies
        for (layer, frequencies) in frequencies.enumerated() {
            guard let frequency = frequencies.first(where: { $0 > LayerBases.maximumFrequency }) else { continue }
            throw EvaluationError(
                "keys of layer \(layer) are turned by \(frequency) radians per position, and bases are made of those that "
                    + "are turned by at most \(LayerBases.maximumFrequency)"
            )
        }
        var runs: [Run] = []
        for unit in unit.units(of: geometry) {
            let channels = unit.channelCount(in: geometry)
            guard channels <= ArchiveUnit.maximumChannels else {
                throw EvaluationError(
                    "bases of layer \(unit.layers.lowerBound) would be of \(channels) channels together, and can be of at "
                        + "most \(ArchiveUnit.maximumChannels); ask for those of KV heads: --basis \(BasisUnit.head.rawValue)"
                )
            }
            if runs.last?.layers != unit.layers { runs.append(Run(layers: unit.layers, units: [])) }
            runs[runs.count - 1].units.append(unit)
        }
        self.runs = runs
    }

    /// The bases of every layer; nil for layers without a cache.
    ///
    /// - Parameters:
    ///   - prefixes: at least one.
    ///   - profile: what errors of the model's cache cost; where it doesn't say, they cost as much in all channels of a
    ///     layer's keys, or values, by how much these vary.
    ///   - byteLimit: bytes of the archives' bases, of which the components of least variance are left out; nil for all.
    ///   - progress: of the work.
    ///   - layers: the layers of a range, of the prefix of a number; asked for in order, once of each prefix.
    /// - Throws: `EvaluationError` if prefixes have too few tokens, or numbers that bases can't be made of; what `layers`
    ///   throws; `MemoryError`, `CancellationError`.
    func bases(
        of prefixes: [BasisPrefix],
        profile: [LayerProfile],
        byteLimit: Int?,
        progress: ProgressHandler? = nil,
        layers: (_ prefix: Int, _ layers: Range<Int>, _ progress: ProgressHandler?) async throws -> [KVCacheLayer]
    ) async throws -> [LayerBases?] {
        precondition(!prefixes.isEmpty, "bases are made from caches")
        for prefix in prefixes { try prefix.check(geometry) }
        let singleThreaded = SingleThreadedProducts()
        defer { extendLifetime(singleThreaded) }
        try SingleThreadedProducts.reserve(callers: 1)
        let squaredCosines = squaredCosines(of: prefixes)
        let measured = measuredWeights(profile, squaredCosines: squaredCosines)
        let softened = measured?.softened()
        // Where nothing was measured, sensitivities follow from variances, which are known of one run at a time, and their
        // mean only when all bases are made.
        var total = 0.0
        var archives = BasisCut(byteLimit: byteLimit)
        var heads = geometry.layers.map { _ in HeadBases() }
        for run in runs {
            let progress = progress?.part(share(run.layers.lowerBound)...share(run.layers.upperBound))
            // Components are found in about the time that a prefix takes.
            let step = 1 / Double(prefixes.count + 1)
            let groups = try groups(of: run)
            for (index, prefix) in prefixes.enumerated() {
                let range = Double(index) * step...Double(index + 1) * step
                try add(try await layers(index, run.layers, progress?.part(range)), of: prefix, to: groups, run: run)
                progress?(range.upperBound)
            }
            let weights = measured ?? uniformWeights(run, groups: groups, profile, squaredCosines: squaredCosines)
            if measured == nil { total += weights.mean * Double(channelCount(of: run.layers)) }
            for (index, group) in groups.enumerated() {
                try Task.checkCancellation()
                let costs = group.isOfArchive ? weights : softened ?? weights
                var basis = try group.covariance.basis(
                    weights: costs.weights(of: group.unit, areTurned: group.isOfArchive)
                )
                if measured == nil { basis = basis.multiplyingSensitivities(by: weights.mean) }
                if group.isOfArchive {
                    archives.add(basis, of: group.unit)
                } else {
                    heads[group.unit.layers.lowerBound][group.unit.hasKeys ? .keys : .values].append(basis)
                }
                progress?(1 - step + step * Double(index + 1) / Double(groups.count))
            }
            try archives.cut()
        }
        let mean = measured == nil ? total / Double(channelCount(of: geometry.layers.indices)) : 1
        let bases = try finished(archives.archives, heads: heads, mean: mean)
        progress?(1)
        return bases
    }

    private func share(_ layer: Int) -> Double { Double(layer) / Double(geometry.layers.count) }

    private func channelCount(of layers: Range<Int>) -> Int {
        layers.reduce(0) { $0 + geometry.layers[$1].valuesPerToken }
    }

    /// The bases of every layer.
    ///
    /// - Parameter mean: of all sensitivities, in the bases' units.
    /// - Throws: `EvaluationError` if a profile can't have their numbers.
    private func finished(
        _ archives: [LayerBases.Archive],
        heads: [HeadBases],
        mean: Double
    ) throws(EvaluationError) -> [LayerBases?] {
        let heads = try heads.enumerated().map { (layer, bases) throws(EvaluationError) in
            var bases = bases
            for part in CachePart.allCases {
                bases[part] = try bases[part].map { (basis) throws(EvaluationError) in
                    try finished(basis, layer: layer, parts: [part], mean: mean)
                }
            }
            return bases
        }
        let archives = try archives.map { (archive) throws(EvaluationError) in
            let (unit, layer) = (archive.unit, archive.unit.layers.lowerBound)
            let basis = try finished(archive.basis, layer: layer, parts: unit.parts, mean: mean)
            return LayerBases.Archive(unit: unit, basis: basis)
        }
        return geometry.layers.enumerated().map { layer, shape in
            if shape.isEmpty { return nil }
            return LayerBases(
                archives: archives.filter { $0.unit.layers.lowerBound == layer },
                rotaryFrequencies: frequencies[layer],
                keys: heads[layer].keys,
                values: heads[layer].values
            )
        }
    }

    /// A basis in which the mean of all sensitivities is 1; its numbers are those that a profile's reader takes.
    private func finished(
        _ basis: ComponentBasis,
        layer: Int,
        parts: [CachePart],
        mean: Double
    ) throws(EvaluationError) -> ComponentBasis {
        let basis = mean == 1 ? basis : basis.multiplyingSensitivities(by: 1 / mean)
        let what = "layer \(layer) has \(parts.names)"
        guard basis.variances.allSatisfy(\.isFinite) else {
            throw EvaluationError("\(what) that are too large; bases need others")
        }
        let range = ComponentBasis.positiveNumbers
        if let number = (basis.weights + basis.scales).first(where: { !range.contains($0) }) {
            throw EvaluationError(
                "\(what) that vary too much, or too little, beside the other channels: their basis would "
                    + "have a weight of \(number), and weights are from \(range.lowerBound) to \(range.upperBound)"
            )
        }
        return basis
    }
}

/// The bases of a layer's KV heads, as cached.
private struct HeadBases {
    var keys: [ComponentBasis] = []
    var values: [ComponentBasis] = []

    subscript(part: CachePart) -> [ComponentBasis] {
        get { part == .keys ? keys : values }
        set { if part == .keys { keys = newValue } else { values = newValue } }
    }
}

extension [CachePart] {
    /// What errors call them.
    var names: String { map { $0 == .keys ? "keys" : "values" }.joined(separator: " and ") }
}

extension ComponentBasis {
    /// The basis where all errors cost so many times as much.
    fileprivate func multiplyingSensitivities(by factor: Double) -> ComponentBasis {
        let root = factor.squareRoot()
        return ComponentBasis(
            matrix: matrix,
            scales: scales,
            variances: variances.map { Float(Double($0) * factor) },
            weights: weights.map { Float(Double($0) * root) }
        )
    }
}
