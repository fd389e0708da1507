public import ByteStorage
public import KVCacheModel

/// A model's profile in a file of its own: how large its queries are, what errors of its cache cost, and how much its
/// output projections weigh values.
///
/// Source: Formats/profile.md.
public enum ModelProfile: Sendable {
    /// The keys of metadata that say how a profile was made.
    public enum MetadataKey: Sendable {
        /// By what sensitivities were measured: `noise` or `gradients`.
        public static let method = "profile.method"
        /// How finely: the number that `think-compress profile --effort` takes.
        public static let effort = "profile.effort"
        /// The SHA-256 digests of the texts, in hex, separated by commas.
        public static let texts = "profile.texts"
        /// Tokens whose queries were squared.
        public static let tokens = "profile.tokens"
        /// Tokens of the prefixes whose errors were measured.
        public static let prefix = "profile.prefix"
        /// Tokens of the text that follow a prefix.
        public static let continuation = "profile.continuation"
        /// Tokens of a prefix that are read again after these.
        public static let copied = "profile.copied"
        /// How many prefixes there were.
        public static let prefixes = "profile.prefixes"
        /// What the noise follows from.
        public static let seed = "profile.seed"
        /// What channels the bases of archives are of together: `head`, `layer` or `layers`.
        public static let bases = "profile.bases"
        /// The SHA-256 digests of the texts, or dumps, that bases were made from, in hex, separated by commas.
        public static let basesTexts = "profile.bases.texts"
        /// Tokens of the prefixes that bases were made from.
        public static let basesPrefix = "profile.bases.prefix"
        /// How many of those prefixes, or dumps, there were.
        public static let basesPrefixes = "profile.bases.prefixes"
        /// What the channels were weighted by: `sensitivities`, or `variances` where none were measured.
        public static let basesWeights = "profile.bases.weights"
    }

    /// Reads the profile of every layer; matrices of bases stay where they lie in the file.
    ///
    /// - Parameters:
    ///   - metadata: the model's; a profile of another model is refused.
    ///   - geometry: the model's.
    /// - Throws: `EngineFormatError` if the file isn't a profile of such a model.
    public static func read(
        _ file: SafetensorsFile,
        metadata: [String: String],
        geometry: CacheGeometry
    ) throws(EngineFormatError) -> [LayerProfile] {
        try check(file, geometry: geometry, metadata: metadata)
        let parts = Set(file.tensors.names.compactMap { CacheDump.parts(ofName: $0)?.part })
        let hasSensitivities = !parts.isDisjoint(with: CacheDump.Part.sensitivities)
        let bases = try bases(file, geometry: geometry)
        return try geometry.layers.enumerated().map { (layer, geometry) throws(EngineFormatError) in
            if geometry.isEmpty { return .empty }
            func numbers(_ part: CacheDump.Part) throws(EngineFormatError) -> [Float] {
                try self.numbers(file, layer: layer, part: part, geometry: geometry)
            }
            return LayerProfile(
                meanSquaredQueries: try numbers(.profile),
                sensitivity: hasSensitivities
                    ? LayerSensitivity(
                        keys: try numbers(.keySensitivity),
                        values: try numbers(.valueSensitivity),
                        valueVariances: try numbers(.valueVariance)
                    ) : nil,
                outputWeights: parts.contains(.outputWeights) ? try numbers(.outputWeights) : nil,
                bases: bases[layer]
            )
        }
    }

    /// The shapes of the layers that a file is a profile of: those without keys have no heads, and none has query heads.
    /// Where nothing is said of values, they have the dimension 0.
    ///
    /// - Throws: `EngineFormatError` if a tensor is not of a profile's shape.
    /// - Returns: nil if the file isn't a profile: it has no mean squared queries, or keys and values.
    public static func geometry(of file: SafetensorsFile) throws(EngineFormatError) -> CacheGeometry? {
        let parts = file.tensors.names.compactMap { CacheDump.parts(ofName: $0) }
        let layers = parts.filter { $0.part == .profile }.map(\.layer)
        guard let last = layers.max(), !parts.contains(where: { $0.part == .keys }) else { return nil }
        do {
            guard CacheGeometry.Limits.layers.contains(last + 1) else {
                throw EngineFormatError(
                    .unsupported,
                    tensor: CacheDump.name(last, .profile),
                    "is of a layer that no cache may have; remove it"
                )
            }
            var shapes = [LayerGeometry](repeating: .none, count: last + 1)
            for layer in layers {
                let keys = try shape(file, layer: layer, part: .profile)
                let values =
                    try shape(file, layer: layer, part: .valueSensitivity)
                    ?? shape(file, layer: layer, part: .outputWeights)
                    ?? basisShape(file, layer: layer)
                shapes[layer] = try LayerGeometry(
                    queryHeads: 0,
                    kvHeads: keys?.heads ?? 0,
                    keyDimension: keys?.dimension ?? 0,
                    valueDimension: values?.dimension ?? 0
                )
            }
            return try CacheGeometry(shapes)
        } catch let error as EngineFormatError {
            throw error
        } catch {
            throw EngineFormatError(.unsupported, "is no profile of a model that is possible: \(error)")
        }
    }

    /// Writes the profile of every layer.
    ///
    /// - Parameters:
    ///   - layers: of the geometry's shapes; all with sensitivities or none, with output weights or none, and with bases
    ///     or none, whose units have all keys and values once.
    ///   - metadata: of the model, and how the profile was made (`MetadataKey`).
    ///   - access: who may use the file.
    /// - Throws: `FileError` if the file can't be written; `MemoryError`.
    public static func write(
        _ layers: [LayerProfile],
        geometry: CacheGeometry,
        metadata: [String: String],
        to path: String,
        replacingExisting: Bool,
        access: FileAccess = .standard
    ) throws {
        precondition(layers.count == geometry.layers.count, "every layer has a profile")
        var tensors: [Content] = []
        for (index, (layer, geometry)) in zip(layers, geometry.layers).enumerated() where !geometry.isEmpty {
            func add(_ part: CacheDump.Part, _ numbers: [Float]) throws(MemoryError) {
                let shape = shape(of: part, geometry: geometry)
                tensors.append(try Content(CacheDump.name(index, part), numbers, shape: shape))
            }
            try add(.profile, layer.meanSquaredQueries)
            if let outputWeights = layer.outputWeights { try add(.outputWeights, outputWeights) }
            guard let sensitivity = layer.sensitivity else { continue }
            try add(.keySensitivity, sensitivity.keys)
            try add(.valueSensitivity, sensitivity.values)
            try add(.valueVariance, sensitivity.valueVariances)
        }
        tensors += try self.tensors(ofBases: layers.map(\.bases), geometry: geometry)
        let writer = try SafetensorsWriter(
            path: path,
            replacingExisting: replacingExisting,
            access: access,
            tensors: tensors.map(\.entry),
            metadata: metadata
        )
        for tensor in tensors {
            var offset = 0
            for piece in tensor.pieces {
                try writer.write(piece, to: tensor.entry.name, at: offset)
                offset += piece.count
            }
        }
        try writer.commit()
    }

    /// A tensor to be written, in pieces that follow each other.
    struct Content {
        let entry: SafetensorsWriter.Entry
        let pieces: [SharedBytes]

        init(_ name: String, type: String, shape: [Int], pieces: [SharedBytes]) {
            entry = .init(
                name: name,
                elementType: type,
                shape: shape,
                byteCount: pieces.reduce(0) { $0 + $1.count }
            )
            self.pieces = pieces
        }

        /// A tensor of float32 numbers.
        init(_ name: String, _ numbers: [Float], shape: [Int]) throws(MemoryError) {
            let bytes = try SharedBytes(words: numbers.map(\.bitPattern))
            self.init(name, type: ElementType.float32.name, shape: shape, pieces: [bytes])
        }
    }

    /// What a part of a layer's profile is in a file.
    static func entry(layer: Int, part: CacheDump.Part, geometry: LayerGeometry) -> SafetensorsWriter.Entry {
        let shape = shape(of: part, geometry: geometry)
        return .init(
            name: CacheDump.name(layer, part),
            elementType: ElementType.float32.name,
            shape: shape,
            byteCount: shape.reduce(ElementType.float32.byteCount, *)
        )
    }

    private static func shape(of part: CacheDump.Part, geometry: LayerGeometry) -> [Int] {
        let isOfKeys = part == .profile || part == .keySensitivity
        return [geometry.kvHeads, isOfKeys ? geometry.keyDimension : geometry.valueDimension]
    }

    /// A profile must be of this model: of as many layers, and of no other name.
    private static func check(
        _ file: SafetensorsFile,
        geometry: CacheGeometry,
        metadata: [String: String]
    ) throws(EngineFormatError) {
        let wanted = geometry.layers.indices.filter { !geometry.layers[$0].isEmpty }
        let found = file.tensors.names.count { CacheDump.parts(ofName: $0)?.part == .profile }
        guard found == wanted.count, wanted.allSatisfy({ file.tensors[CacheDump.name($0, .profile)] != nil }) else {
            throw EngineFormatError(
                .unsupported,
                "the profile has \(found) layers (layers.N.q2) and the cache \(wanted.count); pass that of its model"
            )
        }
        // Equal weights are the same model, whatever its folder is called.
        if CacheIdentity.haveSameWeights(file.metadata, metadata) { return }
        if let mismatch = CacheIdentity.mismatch(metadata, file.metadata) {
            throw EngineFormatError(
                .unsupported,
                "the profile has another \(mismatch.name) than the cache; pass that of its model"
            )
        }
    }

    /// The numbers of a part of a layer, which must be there.
    private static func numbers(
        _ file: SafetensorsFile,
        layer: Int,
        part: CacheDump.Part,
        geometry: LayerGeometry
    ) throws(EngineFormatError) -> [Float] {
        let name = CacheDump.name(layer, part)
        let shape = shape(of: part, geometry: geometry)
        guard let numbers = try numbers(file, name: name, shape: shape) else {
            throw EngineFormatError(
                .unsupported,
                tensor: name,
                "is missing, and \(part == .outputWeights ? "those of other layers" : "other sensitivities") are there; "
                    + "make the profile anew"
            )
        }
        if let number = numbers.first(where: { !($0.isFinite && $0 >= 0) }) {
            let what =
                switch part {
                case .profile: "mean squared queries"
                case .outputWeights: "output weights"
                default: "sensitivities and variances"
                }
            throw EngineFormatError(
                .unsupported,
                tensor: name,
                "holds \(number); \(what) are finite and not negative"
            )
        }
        return numbers
    }

    /// The numbers of a tensor, or nil if the file has none of the name.
    static func numbers(
        _ file: SafetensorsFile,
        name: String,
        shape: [Int]
    ) throws(EngineFormatError) -> [Float]? {
        guard let tensor = file.tensors[name] else { return nil }
        guard tensor.elementType == ElementType.float32.name, tensor.shape == shape else {
            throw EngineFormatError(
                .unsupported,
                tensor: name,
                "is \(tensor.elementType) \(tensor.shape), must be F32 \(shape)"
            )
        }
        return tensor.words.map(Float.init(bitPattern:))
    }

    /// Heads and dimension of a part, or nil if the file has none.
    private static func shape(
        _ file: SafetensorsFile,
        layer: Int,
        part: CacheDump.Part
    ) throws(EngineFormatError) -> (heads: Int, dimension: Int)? {
        try shape(file, name: CacheDump.name(layer, part))
    }

    static func shape(
        _ file: SafetensorsFile,
        name: String
    ) throws(EngineFormatError) -> (heads: Int, dimension: Int)? {
        guard let tensor = file.tensors[name] else { return nil }
        guard tensor.shape.count == 2 else {
            throw EngineFormatError(
                .unsupported,
                tensor: name,
                "has the shape \(tensor.shape), must be [KV heads, dimension]"
            )
        }
        return (tensor.shape[0], tensor.shape[1])
    }
}
