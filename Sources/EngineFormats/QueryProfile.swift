public import ByteStorage
public import KVCacheModel

/// A model's query profile in a file of its own, for caches that come without queries: Formats/dump.md.
public enum QueryProfile: Sendable {
    /// Reads the profile of every layer.
    ///
    /// - Parameters:
    ///   - metadata: the model's; a profile of another model is refused.
    ///   - geometry: the model's.
    /// - Returns: for each layer `kvHeads * keyDimension` mean squared queries.
    /// - Throws: `EngineFormatError` if the file isn't a profile of such a model.
    public static func read(
        _ file: SafetensorsFile,
        metadata: [String: String],
        geometry: CacheGeometry
    ) throws(EngineFormatError) -> [[Float]] {
        try check(file, geometry: geometry, metadata: metadata)
        return try geometry.layers.enumerated().map { (layer, geometry) throws(EngineFormatError) in
            let shape = [geometry.kvHeads, geometry.keyDimension]
            guard let profile = try layerProfile(file, layer: layer, shape: shape) else { return [] }
            if let number = profile.first(where: { !($0.isFinite && $0 >= 0) }) {
                throw EngineFormatError(
                    .unsupported,
                    tensor: CacheDump.name(layer, .profile),
                    "holds \(number); mean squared queries are finite and not negative"
                )
            }
            return profile
        }
    }

    /// Writes the profile of every layer.
    ///
    /// - Parameters:
    ///   - layers: for each layer `kvHeads * keyDimension` mean squared queries.
    ///   - metadata: of the model, and how the profile was made.
    ///   - access: who may use the file.
    /// - Throws: `FileError` if the file can't be written.
    public static func write(
        _ layers: [[Float]],
        geometry: CacheGeometry,
        metadata: [String: String],
        to path: String,
        replacingExisting: Bool,
        access: FileAccess = .standard
    ) throws {
        let writer = try SafetensorsWriter(
            path: path,
            replacingExisting: replacingExisting,
            access: access,
            tensors: layers.indices.map { entry(layer: $0, geometry: geometry.layers[$0]) },
            metadata: metadata
        )
        for (layer, profile) in layers.enumerated() {
            try writer.write(SharedBytes(words: profile.map(\.bitPattern)), to: CacheDump.name(layer, .profile))
        }
        try writer.commit()
    }

    /// What a layer's profile is in a file.
    static func entry(layer: Int, geometry: LayerGeometry) -> SafetensorsWriter.Entry {
        .init(
            name: CacheDump.name(layer, .profile),
            elementType: ElementType.float32.name,
            shape: [geometry.kvHeads, geometry.keyDimension],
            byteCount: geometry.kvHeads * geometry.keyDimension * ElementType.float32.byteCount
        )
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
                "the query profile has \(found) layers (layers.N.q2) and the cache \(wanted.count); pass that of its model"
            )
        }
        // Equal weights are the same model, whatever its folder is called.
        if CacheIdentity.haveSameWeights(file.metadata, metadata) { return }
        if let mismatch = CacheIdentity.mismatch(metadata, file.metadata) {
            throw EngineFormatError(
                .unsupported,
                "the query profile has another \(mismatch.name) than the cache; pass that of its model"
            )
        }
    }

    /// A layer's profile, or nil if the file has none.
    static func layerProfile(
        _ file: SafetensorsFile,
        layer: Int,
        shape: [Int]
    ) throws(EngineFormatError) -> [Float]? {
        let name = CacheDump.name(layer, .profile)
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
}
