internal import ByteStorage
public import ComputeRuntime
internal import EngineFormats
public import KVCacheModel
public import LlamaDecoder
internal import TextTokenization

/// Measures a model's profile: mean squared queries, and by noise what errors of its cache cost.
///
/// Noise is added to keys or values of one layer, one KV head, or one band of a prefix's exact cache, and the predictions
/// of the tokens that follow, and of a part of the prefix that is read again, are compared with those after the exact one.
/// Source: Formats/profile.md, "By noise".
public struct ProfileMeasurement: Sendable {
    private let decoder: TransformerDecoder
    private let settings: ProfileSettings
    /// What is read for the mean squared queries.
    private let pieces: [[Int32]]
    /// Prefixes, each with the tokens that follow it.
    private let prefixes: [[Int32]]

    private var geometry: CacheGeometry { decoder.model.configuration.geometry }

    /// - Parameter texts: what `settings` has the digests of.
    /// - Throws: `EvaluationError` if model or texts have too few tokens; `ModelError` or `TokenizerError` if a text can't
    ///   be encoded.
    public init(decoder: TransformerDecoder, texts: [String], settings: ProfileSettings) throws {
        self.decoder = decoder
        self.settings = settings
        let model = decoder.model
        pieces = try texts.flatMap { text in
            let tokens = try model.tokens(of: text)
            return stride(from: 0, to: tokens.count, by: settings.context).map {
                Array(tokens[$0..<min($0 + settings.context, tokens.count)])
            }
        }
        prefixes =
            settings.effort == .queries
            ? []
            : try Self.prefixes(
                of: texts,
                model: model,
                prefix: settings.prefix,
                following: ProfileSettings.following,
                count: settings.prefixCount
            )
    }

    /// Tokens of a prefix that a model has positions for.
    ///
    /// - Throws: `EvaluationError` if it has too few to measure sensitivities.
    public static func defaultPrefix(of model: LlamaModel) throws(EvaluationError) -> Int {
        let positions = model.configuration.maximumPositions
        let room = positions - ProfileSettings.following
        guard room >= ProfileSettings.minimumPrefix else {
            throw EvaluationError(
                "the model has \(positions) positions, and sensitivities take "
                    + "\(ProfileSettings.minimumPrefix + ProfileSettings.following); measure queries alone, by effort 0"
            )
        }
        return min(room, ProfileSettings.defaultPrefix)
    }

    /// How much there is to compute, in tokens and layers.
    public var cost: Int { Work(self, progress: nil).total }

    /// Tokens whose queries are squared.
    public var tokenCount: Int { pieces.reduce(0) { $0 + $1.count } }

    /// How the profile was made, for its metadata.
    public var metadata: [String: String] {
        typealias Key = ModelProfile.MetadataKey
        var metadata = [
            Key.texts: settings.texts.joined(separator: ","),
            Key.effort: "\(settings.effort.rawValue)",
            Key.tokens: "\(tokenCount)",
        ]
        if settings.effort > .queries {
            metadata[Key.method] = "noise"
            metadata[Key.prefix] = "\(settings.prefix)"
            metadata[Key.continuation] = "\(ProfileSettings.continuation)"
            metadata[Key.copied] = "\(copiedCount)"
            metadata[Key.prefixes] = "\(prefixes.count)"
            metadata[Key.seed] = "\(settings.seed)"
        }
        return metadata
    }

    /// Makes the measurements that the journal doesn't have.
    ///
    /// - Returns: the profile of every layer.
    /// - Throws: `ModelError`, `CodecError`, `MemoryError`, or what went wrong with the journal's file;
    ///   `CancellationError`.
    public func measure(journal: ProfileJournal, progress: ProgressHandler? = nil) async throws -> [LayerProfile] {
        precondition(journal.settings == settings, "the journal is of other settings")
        var work = Work(self, progress: progress)
        let squares = try await meanSquaredQueries(journal: journal, work: &work)
        let outputs = try geometry.layers.indices.map { try decoder.model.outputWeightSquares(layer: $0) }
        func profile(of layer: Int, sensitivity: LayerSensitivity?) -> LayerProfile {
            LayerProfile(
                meanSquaredQueries: squares[layer].map { Float($0) },
                sensitivity: sensitivity,
                outputWeights: outputs[layer].map { Float($0) }
            )
        }
        guard settings.effort > .queries else {
            return geometry.layers.indices.map { profile(of: $0, sensitivity: nil) }
        }
        for prefix in prefixes.indices {
            try await probe(prefix, journal: journal, work: &work) { probe in
                probe.weights(squares: squares[probe.layer], outputs: outputs[probe.layer])
            }
        }
        return geometry.layers.indices.map { layer in
            profile(
                of: layer,
                sensitivity: sensitivity(of: layer, journal: journal) { probe in
                    probe.weights(squares: squares[layer], outputs: outputs[layer])
                }
            )
        }
    }

    // MARK: -

    /// Prefixes with what follows them: they lie evenly over the places of the texts where one can begin.
    ///
    /// - Parameters:
    ///   - prefix: tokens of each.
    ///   - following: positions that the model needs after them.
    ///   - count: how many.
    ///   - least: how many are enough, where texts have too few places; nil for `count`.
    static func prefixes(
        of texts: [String],
        model: LlamaModel,
        prefix: Int,
        following: Int = ProfileSettings.continuation,
        count: Int,
        least: Int? = nil
    ) throws -> [[Int32]] {
        let least = least ?? count
        let needed = prefix + ProfileSettings.continuation
        let positions = model.configuration.maximumPositions
        guard prefix + following <= positions else {
            throw EvaluationError(
                "prefixes of \(prefix) tokens and the \(following) that follow are asked for, "
                    + "and the model has \(positions) positions; ask for shorter ones"
            )
        }
        guard prefix >= ProfileSettings.minimumPrefix else {
            throw EvaluationError(
                "prefixes of \(prefix) tokens are too short: \(ProfileSettings.minimumPrefix) is the least"
            )
        }
        let beginning = model.tokenizer.leadingTokens
        let length = needed - beginning.count
        let tokens = try texts.map { try model.tokenizer.encode($0, addingSpecialTokens: false) }
        let places = tokens.map { max($0.count - length + 1, 0) }
        let total = places.reduce(0, +)
        guard total >= least else {
            throw EvaluationError(
                "the longest text has \(tokens.map(\.count).max() ?? 0) tokens, and \(length + least - 1) "
                    + "are needed; pass a longer one, ask for shorter prefixes, or measure queries alone, by effort 0"
            )
        }
        let count = min(count, total)
        return (0..<count).map { index in
            var start = (2 * index + 1) * total / (2 * count)
            var text = 0
            while start >= places[text] {
                start -= places[text]
                text += 1
            }
            return beginning + tokens[text][start..<start + length]
        }
    }

    /// The mean squared queries of every layer over all tokens.
    private func meanSquaredQueries(journal: ProfileJournal, work: inout Work) async throws -> [[Double]] {
        var sums = geometry.layers.map { [Double](repeating: 0, count: $0.kvHeads * $0.keyDimension) }
        for (index, piece) in pieces.enumerated() {
            let squares: [[Double]]
            if let known = journal.squares(piece: index), known.map(\.count) == sums.map(\.count) {
                squares = known
            } else {
                squares = try await decoder.queryProfile(
                    piece,
                    progress: work.part(piece.count * geometry.layers.count)
                )
                try journal.add(.queries(piece: index, squares: squares))
            }
            work.finish(piece.count * geometry.layers.count)
            for layer in sums.indices {
                for channel in sums[layer].indices {
                    sums[layer][channel] += squares[layer][channel] * Double(piece.count)
                }
            }
        }
        return sums.map { $0.map { $0 / Double(tokenCount) } }
    }

    /// Tokens that are read again after a prefix.
    private var copiedCount: Int { min(ProfileSettings.copied, noisyCount) }

    /// Tokens of a prefix that carry noise.
    private var noisyCount: Int { settings.prefix - ProfileSettings.firstTokens - ProfileSettings.lastTokens }

    /// Which tokens of a prefix are read again after it: of each another part, of those that carry noise.
    private func copiedTokens(prefix index: Int) -> Range<Int> {
        let room = noisyCount - copiedCount
        let start = ProfileSettings.firstTokens + (2 * index + 1) * room / (2 * prefixes.count)
        return start..<start + copiedCount
    }

    /// Measures what is missing of a prefix.
    private func probe(
        _ index: Int,
        journal: ProfileJournal,
        work: inout Work,
        weights: (NoiseProbe) -> [Double]
    ) async throws {
        let probes = self.probes(prefix: index)
        let missing = Set(probes.filter { journal.sensitivity(of: $0, prefix: index) == nil })
        let valueCounts = geometry.layers.map { $0.kvHeads * $0.valueDimension }
        let hasVariances = journal.variances(prefix: index)?.map(\.count) == valueCounts
        guard !missing.isEmpty || !hasVariances else {
            work.finish(work.cost(ofPrefix: index))
            return
        }
        let tokens = prefixes[index]
        let cache = try await decoder.fullCache(
            Array(tokens[..<settings.prefix]),
            elementType: .float32,
            queryWindow: 1,
            progress: work.part(settings.prefix * geometry.layers.count)
        )
        work.finish(settings.prefix * geometry.layers.count)
        let layers = cache.layers.map { NoisyLayer($0) }
        if !hasVariances {
            try journal.add(.variances(prefix: index, layers: layers.map { $0.variances(ofKeys: false) }))
        }
        let following = Array(tokens[settings.prefix...]) + tokens[copiedTokens(prefix: index)]
        let continuation = try decoder.probedContinuation(of: cache, with: following)
        let width = decoder.model.configuration.vocabularySize
        let exact = try predictions(continuation.logits, width: width)
        for probe in probes {
            defer { work.finish(work.cost(of: probe)) }
            guard missing.contains(probe) else { continue }
            var random = probe.random(seed: settings.seed, prefix: index)
            let (layer, errors) = try layers[probe.layer].adding(
                probe,
                geometry: geometry.layers[probe.layer],
                using: &random
            )
            let logits = try decoder.logits(of: continuation, replacing: probe.layer, by: layer)
            let noisy = try predictions(logits, width: width)
            let divergence = zip(exact, noisy).reduce(0) { $0 + $1.0.divergence(of: $1.1) } / Double(exact.count)
            try journal.add(
                .noise(
                    probe: probe,
                    prefix: index,
                    sensitivity: Self.sensitivity(divergence, errors: errors, weights: weights(probe))
                )
            )
        }
    }

    /// The sensitivity of a channel of weight 1.
    ///
    /// - Parameter errors: the mean squared noise of every channel.
    private static func sensitivity(_ divergence: Double, errors: [Double], weights: [Double]) -> Double {
        let total = zip(errors, weights).reduce(0) { $0 + $1.0 * $1.1 }
        // Rounding may take a divergence below 0. Channels without noise, or which no query reads, have none.
        return total > 0 ? max(divergence, 0) / total : 0
    }

    private func predictions(_ logits: [Float], width: Int) throws -> [Prediction] {
        try stride(from: 0, to: logits.count, by: width).map { try Prediction(logits: logits[$0..<$0 + width]) }
    }

    private func probes(prefix: Int) -> [NoiseProbe] {
        geometry.layers.indices.flatMap { layer in
            NoiseProbe.all(layer: layer, geometry: geometry.layers[layer], effort: settings.effort)
        }.filter { prefix < settings.prefixCount(of: $0) }
    }

    /// What the journal says of a layer.
    private func sensitivity(
        of layer: Int,
        journal: ProfileJournal,
        weights: (NoiseProbe) -> [Double]
    ) -> LayerSensitivity {
        let shape = geometry.layers[layer]
        var keys = [Float](repeating: 0, count: shape.kvHeads * shape.keyDimension)
        var values = [Float](repeating: 0, count: shape.kvHeads * shape.valueDimension)
        for probe in NoiseProbe.all(layer: layer, geometry: shape, effort: settings.effort) {
            let measured = (0..<settings.prefixCount(of: probe)).compactMap {
                journal.sensitivity(of: probe, prefix: $0)
            }
            let mean = measured.reduce(0, +) / Double(max(measured.count, 1))
            let weights = weights(probe)
            for channel in probe.channels(shape) {
                let sensitivity = Float(mean * weights[channel])
                if probe.isOfKeys { keys[channel] = sensitivity } else { values[channel] = sensitivity }
            }
        }
        let variances = prefixes.indices.compactMap { journal.variances(prefix: $0)?[layer] }
        return LayerSensitivity(
            keys: keys,
            values: values,
            valueVariances: values.indices.map { channel in
                Float(variances.reduce(0) { $0 + $1[channel] } / Double(variances.count))
            }
        )
    }

    /// How much of the measurement is done, in tokens and layers that are computed.
    private struct Work {
        private let measurement: ProfileMeasurement
        private let progress: ProgressHandler?
        let total: Int
        private var done = 0

        init(_ measurement: ProfileMeasurement, progress: ProgressHandler?) {
            self.measurement = measurement
            self.progress = progress
            var total = measurement.tokenCount * measurement.geometry.layers.count
            for prefix in measurement.prefixes.indices { total += Self.cost(ofPrefix: prefix, of: measurement) }
            self.total = total
        }

        /// A probe computes the layers from its own on, and the head, which is like some layers.
        func cost(of probe: NoiseProbe) -> Int { Self.cost(of: probe, of: measurement) }
        func cost(ofPrefix prefix: Int) -> Int { Self.cost(ofPrefix: prefix, of: measurement) }

        private static func cost(of probe: NoiseProbe, of measurement: ProfileMeasurement) -> Int {
            let layers = measurement.geometry.layers.count
            return ProfileSettings.following * (layers - probe.layer + layers / 2 + 1)
        }

        private static func cost(ofPrefix prefix: Int, of measurement: ProfileMeasurement) -> Int {
            measurement.probes(prefix: prefix).reduce(
                measurement.settings.prefix * measurement.geometry.layers.count
            ) { $0 + cost(of: $1, of: measurement) }
        }

        /// A handler for the next so much of the work.
        func part(_ cost: Int) -> ProgressHandler? {
            progress?.part(Double(done) / Double(total)...Double(done + cost) / Double(total))
        }

        mutating func finish(_ cost: Int) {
            done += cost
            progress?(Double(done) / Double(total))
        }
    }
}

/// A layer of an exact cache, to have noise added.
private struct NoisyLayer: Sendable {
    private let layer: KVCacheLayer

    init(_ layer: KVCacheLayer) {
        self.layer = layer
    }

    /// The rows of a head: `[tokens, dimension]`.
    private func rows(_ tensor: KVTensor, head: Int) -> [Float] {
        let count = tensor.tokens * tensor.headDimension
        return unsafe [Float](unsafeUninitializedCapacity: count) { buffer, filled in
            if let base = buffer.baseAddress {
                unsafe tensor.widenRows(head: head, from: 0, count: tensor.tokens, into: base)
            }
            filled = count
        }
    }

    /// The variance of each channel of keys or values about its mean, without the first tokens: head by head.
    func variances(ofKeys: Bool) -> [Double] {
        let tensor = ofKeys ? layer.keys : layer.values
        return (0..<tensor.heads).flatMap { variances(rows(tensor, head: $0), dimension: tensor.headDimension) }
    }

    private func variances(_ rows: [Float], dimension: Int) -> [Double] {
        let first = ProfileSettings.firstTokens * dimension
        var means = [Double](repeating: 0, count: dimension)
        for place in first..<rows.count { means[place % dimension] += Double(rows[place]) }
        let count = Double((rows.count - first) / max(dimension, 1))
        for channel in means.indices { means[channel] /= count }
        var squares = [Double](repeating: 0, count: dimension)
        for place in first..<rows.count {
            let distance = Double(rows[place]) - means[place % dimension]
            squares[place % dimension] += distance * distance
        }
        return squares.map { $0 / count }
    }

    /// The layer with noise in the channels of a probe.
    ///
    /// - Returns: the layer, and the mean squared noise of every channel over the tokens that carry it.
    func adding(
        _ probe: NoiseProbe,
        geometry: LayerGeometry,
        using random: inout SplitMix64
    ) throws(MemoryError) -> (KVCacheLayer, errors: [Double]) {
        let tensor = probe.isOfKeys ? layer.keys : layer.values
        let dimension = tensor.headDimension
        let noisy = Set(probe.channels(geometry))
        var errors = [Double](repeating: 0, count: tensor.heads * dimension)
        var words: [UInt32] = []
        words.reserveCapacity(tensor.heads * tensor.tokens * dimension)
        let tokens = ProfileSettings.firstTokens..<tensor.tokens - ProfileSettings.lastTokens
        for head in 0..<tensor.heads {
            var rows = rows(tensor, head: head)
            let channels = (0..<dimension).filter { noisy.contains(head * dimension + $0) }
            if !channels.isEmpty {
                let deviations = variances(rows, dimension: dimension).map { $0.squareRoot() * probe.share }
                for channel in channels {
                    var sum = 0.0
                    for pair in stride(from: tokens.lowerBound, to: tokens.upperBound, by: 2) {
                        let (one, other) = random.nextGaussians()
                        for (token, number) in [(pair, one), (pair + 1, other)] where token < tokens.upperBound {
                            let place = token * dimension + channel
                            let exact = rows[place]
                            rows[place] = Float(Double(exact) + number * deviations[channel])
                            let error = Double(rows[place]) - Double(exact)
                            sum += error * error
                        }
                    }
                    errors[head * dimension + channel] = sum / Double(tokens.count)
                }
            }
            words += rows.map(\.bitPattern)
        }
        let changed = KVTensor(
            bytes: try SharedBytes(words: words),
            elementType: .float32,
            heads: tensor.heads,
            tokens: tensor.tokens,
            headDimension: dimension
        )
        return (
            probe.isOfKeys
                ? KVCacheLayer(keys: changed, values: layer.values) : KVCacheLayer(keys: layer.keys, values: changed),
            errors
        )
    }
}
