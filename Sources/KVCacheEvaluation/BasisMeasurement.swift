public import ComputeRuntime
internal import EngineFormats
public import KVCacheModel
public import LlamaDecoder

/// Makes the bases of a model's profile, from the caches of prefixes that the model computes.
///
/// Source: Formats/profile.md, "How bases are made".
public struct BasisMeasurement: Sendable {
    /// Prefixes that bases are made from, where texts have so many places.
    public static let prefixCount = 6

    private let decoder: TransformerDecoder
    private let unit: BasisUnit
    private let byteLimit: Int?
    private let maker: BasisMaker
    private let prefixes: [[Int32]]
    private let textDigests: [String]
    private let prefix: Int

    private var geometry: CacheGeometry { decoder.model.configuration.geometry }

    /// - Parameters:
    ///   - digests: the texts' SHA-256 digests, in hex.
    ///   - prefix: tokens of a prefix.
    ///   - unit: the archives' units, with all their components; nil for what is best for the model's size.
    /// - Throws: `EvaluationError` if model or texts have too few tokens, or the units too many channels; `ModelError` or `TokenizerError` if a text can't
    ///   be encoded.
    public init(
        decoder: TransformerDecoder,
        texts: [String],
        digests: [String],
        prefix: Int,
        unit: BasisUnit? = nil
    ) throws {
        self.decoder = decoder
        self.prefix = prefix
        textDigests = digests
        let configuration = decoder.model.configuration
        let geometry = configuration.geometry
        let best = BasisUnit.best(for: geometry, parameterCount: decoder.model.parameterCount)
        self.unit = unit ?? best.unit
        byteLimit = unit == nil ? best.byteLimit : nil
        maker = try BasisMaker(
            geometry: geometry,
            frequencies: geometry.layers.indices.map {
                configuration.rotary(ofLayer: $0).frequencies(tokenCount: prefix)
            },
            unit: self.unit
        )
        prefixes = try ProfileMeasurement.prefixes(
            of: texts,
            model: decoder.model,
            prefix: prefix,
            count: Self.prefixCount,
            least: 1
        )
        .map { Array($0[..<prefix]) }
    }

    /// How much there is to compute, in tokens and layers.
    public var cost: Int { prefixes.reduce(0) { $0 + $1.count } * geometry.layers.count }

    /// The profile with bases.
    ///
    /// - Parameter profile: of every layer; bases that it has are replaced.
    /// - Throws: `ModelError`, `EvaluationError`, `MemoryError`, `CancellationError`.
    public func adding(to profile: [LayerProfile], progress: ProgressHandler? = nil) async throws -> [LayerProfile] {
        let caches = try LayerwisePrefill(prefixes, elementType: .float32, decoder: decoder)
        let layerCount = geometry.layers.count
        let bases = try await maker.bases(
            of: prefixes.map { BasisPrefix(tokenCount: $0.count, layers: layerCount) },
            profile: profile,
            byteLimit: byteLimit,
            progress: progress
        ) { prefix, layers, progress in
            try layers.map { layer in
                let share = { Double($0 - layers.lowerBound) / Double(layers.count) }
                return try caches.nextLayer(
                    ofPrompt: prefix,
                    progress: progress?.part(share(layer)...share(layer + 1))
                )
            }
        }
        return zip(profile, bases).map { $0.withBases($1) }
    }

    /// How the bases were made, for the profile's metadata.
    ///
    /// - Parameter profile: what they were added to.
    public func metadata(of profile: [LayerProfile]) -> [String: String] {
        typealias Key = ModelProfile.MetadataKey
        return [
            Key.bases: unit.rawValue,
            Key.basesTexts: textDigests.joined(separator: ","),
            Key.basesPrefix: "\(prefix)",
            Key.basesPrefixes: "\(prefixes.count)",
            Key.basesWeights: profile.contains { $0.sensitivity != nil }
                ? BasisMaker.weightsBySensitivities : BasisMaker.weightsByVariances,
        ]
    }
}

extension LayerProfile {
    /// The profile with bases in place of its own.
    func withBases(_ bases: LayerBases?) -> LayerProfile {
        LayerProfile(
            meanSquaredQueries: meanSquaredQueries,
            sensitivity: sensitivity,
            outputWeights: outputWeights,
            bases: bases
        )
    }
}
