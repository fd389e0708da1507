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
        let tokens = try numbers(file, "tokens")
        let positions = try numbers(file, "positions")
        var keys: [KVTensor] = []
        while let tensor = file.tensors[name(keys.count, .keys)] {
            keys.append(try self.tensor(tensor, name: name(keys.count, .keys)))
        }
        guard !keys.isEmpty else {
            throw EngineFormatError(
                .unsupported,
                "the file has no tensor '\(name(0, .keys))', so it is no cache dump; Tools/export-cache writes one"
            )
        }
        let states = try layerStates(file, count: keys.count)
        let tokenCount =
            try tokenCount(file) ?? tokens?.count ?? positions?.count ?? keys.reduce(0) { max($0, $1.tokens) }
        return try KVCache(
            layers: keys.enumerated().map { index, keys in
                try layer(file, index: index, keys: keys, state: states[index], tokenCount: tokenCount)
            },
            tokenCount: tokenCount,
            tokens: tokens,
            positions: positions,
            metadata: file.metadata
        )
    }

    /// The parts of a layer in a dump or a profile.
    public enum Part: String, Sendable {
        case keys, values, queries, state
        case profile = "q2"
        case heldTokens = "held_tokens"
        // Of a profile alone.
        case keySensitivity = "key_sensitivity"
        case valueSensitivity = "value_sensitivity"
        case valueVariance = "value_variance"
        case outputWeights = "o2"

        /// What a profile has of errors.
        static let sensitivities: [Part] = [.keySensitivity, .valueSensitivity, .valueVariance]
        /// What only profiles have.
        static let ofProfilesAlone = sensitivities + [.outputWeights]
    }

    /// The name of the number of tokens, where nothing else says it.
    static let tokenCountName = "token_count"

    /// The name of a layer's tensor.
    public static func name(_ layer: Int, _ part: Part) -> String { "layers.\(layer).\(part.rawValue)" }

    /// The name of a layer's state.
    static func name(_ layer: Int, state: String) -> String { "\(name(layer, .state)).\(state)" }

    /// What a tensor of that name is: the layer, the part, and the name of a state; nil for what is none of a dump's.
    static func parts(ofName name: String) -> (layer: Int, part: Part, stateName: String)? {
        let words = name.split(separator: ".", maxSplits: 3, omittingEmptySubsequences: false)
        guard words.count >= 3, words[0] == "layers", let layer = Int(words[1]), layer >= 0, "\(layer)" == words[1],
            let part = Part(rawValue: String(words[2])), (words.count == 4) == (part == .state)
        else { return nil }
        return (layer, part, words.count == 4 ? String(words[3]) : "")
    }

    // MARK: -

    private static func layer(
        _ file: SafetensorsFile,
        index: Int,
        keys: KVTensor,
        state: [LayerState],
        tokenCount: Int
    ) throws -> KVCacheLayer {
        guard let values = file.tensors[name(index, .values)] else {
            throw EngineFormatError(.unsupported, tensor: name(index, .values), "is missing")
        }
        let shape = [keys.heads, keys.headDimension]
        return KVCacheLayer(
            keys: keys,
            values: try tensor(values, name: name(index, .values), least: 0),
            held: try heldTokens(file, index: index, keys: keys, tokenCount: tokenCount),
            queries: try file.tensors[name(index, .queries)].map { try tensor($0, name: name(index, .queries)) },
            profile: try ModelProfile.numbers(file, name: name(index, .profile), shape: shape).map {
                LayerProfile(meanSquaredQueries: $0)
            },
            state: state
        )
    }

    /// Which tokens a layer has: those listed, or else the last ones.
    private static func heldTokens(
        _ file: SafetensorsFile,
        index: Int,
        keys: KVTensor,
        tokenCount: Int
    ) throws -> HeldTokens {
        let name = name(index, .heldTokens)
        guard let tensor = file.tensors[name] else { return keys.tokens < tokenCount && keys.heads > 0 ? .last : .all }
        guard tensor.elementType == "I32", tensor.shape == [keys.heads, keys.tokens] else {
            throw EngineFormatError(
                .unsupported,
                tensor: name,
                "is \(tensor.elementType) \(tensor.shape), must be I32 \([keys.heads, keys.tokens])"
            )
        }
        let numbers = tensor.words
        return .listed((0..<keys.heads).map { Array(numbers[$0 * keys.tokens..<($0 + 1) * keys.tokens]) })
    }

    /// The states of all layers.
    ///
    /// Layers must be numbered without gaps: one that is skipped would silently be lost.
    private static func layerStates(_ file: SafetensorsFile, count: Int) throws -> [[LayerState]] {
        var states = [[LayerState]](repeating: [], count: count)
        for name in file.tensors.names {
            guard let (layer, part, stateName) = parts(ofName: name) else { continue }
            // What only profiles have is none of a dump's, so it is ignored like any other tensor.
            guard layer < count || Part.ofProfilesAlone.contains(part) else {
                throw EngineFormatError(.unsupported, tensor: name, "there are keys of \(count) layers only")
            }
            guard part == .state, let tensor = file.tensors[name] else { continue }
            guard tensor.elementType == "U8", tensor.shape.count == 1 else {
                throw EngineFormatError(
                    .unsupported,
                    tensor: name,
                    "is \(tensor.elementType) \(tensor.shape), must be U8 [bytes]"
                )
            }
            states[layer].append(LayerState(name: stateName, bytes: tensor.bytes))
        }
        return states
    }

    /// A tensor `[1, heads, tokens, dimension]`, of which the leading 1 may be missing.
    ///
    /// - Parameter least: the least dimension that it may have.
    private static func tensor(
        _ tensor: SafetensorsFile.Tensor,
        name: String,
        least: Int = 1
    ) throws -> KVTensor {
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
        // All zero: a layer without a cache.
        guard shape[0] > 0 && shape[1] > 0 && shape[2] >= least || shape == [0, 0, 0] else {
            if shape[1] == 0 { throw KVCacheError(.emptyCache, "tensor '\(name)' has no tokens") }
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

    private static func tokenCount(_ file: SafetensorsFile) throws -> Int? {
        guard let numbers = try numbers(file, tokenCountName) else { return nil }
        guard numbers.count == 1, numbers[0] > 0 else {
            throw EngineFormatError(.unsupported, tensor: tokenCountName, "must be one number above 0")
        }
        return Int(numbers[0])
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
