internal import ByteStorage
public import KVCacheModel

/// The tensors of a cache dump: a safetensors file with one pair of keys and values per layer.
///
/// Names are those of Formats/dump.md.
public enum CacheDump: Sendable {
    /// Maps the dump at `path` and reads it as a cache; keys and values stay in the file.
    ///
    /// - Throws: `FileError`, `EngineFormatError` or `KVCacheError`, whichever is at fault.
    public static func read(path: String) throws -> KVCache {
        try read(SafetensorsFile(MappedFile.bytes(path: path)))
    }

    /// Reads a safetensors file as a cache; see `read(path:)`.
    public static func read(_ file: SafetensorsFile) throws -> KVCache {
        var layers: [KVCacheLayer] = []
        while let keys = file.tensors[name(layers.count, .keys)] {
            let index = layers.count
            guard let values = file.tensors[name(index, .values)] else {
                throw EngineFormatError(.unsupported, tensor: name(index, .values), "is missing")
            }
            let keyTensor = try tensor(keys, name: name(index, .keys))
            layers.append(
                KVCacheLayer(
                    keys: keyTensor,
                    values: try tensor(values, name: name(index, .values)),
                    queries: try file.tensors[name(index, .queries)].map {
                        try tensor($0, name: name(index, .queries))
                    },
                    profile: try QueryProfile.layerProfile(
                        file,
                        layer: index,
                        shape: [keyTensor.heads, keyTensor.headDimension]
                    )
                )
            )
        }
        guard !layers.isEmpty else {
            throw EngineFormatError(
                .unsupported,
                "the file has no tensor '\(name(0, .keys))', so it is no cache dump; Tools/export-cache writes one"
            )
        }
        try checkNoLayerIsSkipped(file, count: layers.count)
        return try KVCache(
            layers: layers,
            tokens: try numbers(file, "tokens"),
            positions: try numbers(file, "positions"),
            metadata: file.metadata
        )
    }

    /// The parts of a layer in a dump.
    public enum Part: String, Sendable {
        case keys, values, queries
        case profile = "q2"
    }

    /// The name of a layer's tensor.
    public static func name(_ layer: Int, _ part: Part) -> String { "layers.\(layer).\(part.rawValue)" }

    // MARK: -

    /// Layers must be numbered without gaps: one that is skipped would silently be lost.
    private static func checkNoLayerIsSkipped(_ file: SafetensorsFile, count: Int) throws {
        for name in file.tensors.names where name.hasPrefix("layers.") {
            let parts = name.split(separator: ".")
            guard parts.count == 3, parts[0] == "layers", let layer = Int(parts[1]), layer >= count,
                ["keys", "values", "queries", "q2"].contains(parts[2])
            else { continue }
            throw EngineFormatError(.unsupported, tensor: name, "there are keys of \(count) layers only")
        }
    }

    /// A tensor `[1, heads, tokens, headDimension]`, of which the leading 1 may be missing.
    private static func tensor(_ tensor: SafetensorsFile.Tensor, name: String) throws -> KVTensor {
        guard let type = ElementType(name: tensor.elementType) else {
            let known = ElementType.allCases.map(\.name).joined(separator: ", ")
            throw EngineFormatError(
                .unsupported,
                tensor: name,
                "has the element type \(tensor.elementType), which is none of \(known); convert it first"
            )
        }
        let shape = tensor.shape.count == 4 && tensor.shape[0] == 1 ? Array(tensor.shape.dropFirst()) : tensor.shape
        guard shape.count == 3 else {
            throw EngineFormatError(
                .unsupported,
                tensor: name,
                "has the shape \(tensor.shape), must be [1, heads, tokens, head dimension]; dump one sequence at a time"
            )
        }
        guard shape[1] > 0 else { throw KVCacheError(.emptyCache, "tensor '\(name)' has no tokens") }
        guard shape[0] > 0, shape[2] > 0 else {
            throw EngineFormatError(.unsupported, tensor: name, "has the shape \(tensor.shape), which is empty")
        }
        return KVTensor(
            bytes: tensor.bytes,
            elementType: type,
            heads: shape[0],
            tokens: shape[1],
            headDimension: shape[2]
        )
    }

    private static func numbers(_ file: SafetensorsFile, _ name: String) throws -> [Int32]? {
        guard let tensor = file.tensors[name] else { return nil }
        guard tensor.elementType == "I32", tensor.shape.count == 1 else {
            throw EngineFormatError(
                .unsupported,
                tensor: name,
                "is \(tensor.elementType) \(tensor.shape), must be I32 [tokens]"
            )
        }
        return tensor.words.map(Int32.init(bitPattern:))
    }
}

extension SafetensorsFile.Tensor {
    /// The elements of a four-byte type.
    var words: [UInt32] {
        unsafe bytes.withUnsafeBytes { buffer in
            (0..<buffer.count / MemoryLayout<UInt32>.size).map {
                unsafe UInt32(littleEndian: buffer.loadUnaligned(fromByteOffset: $0 * 4, as: UInt32.self))
            }
        }
    }
}
