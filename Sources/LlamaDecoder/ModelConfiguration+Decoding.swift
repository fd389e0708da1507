internal import KVCacheModel

extension ModelConfiguration {
    /// The largest number that a size may be, and a layer's width: far beyond any model, and far from overflow.
    private static let largestSize = 1 << 24
    private static let largestWidth = 1 << 18

    /// Reads `config.json`.
    ///
    /// Where a field is missing, what the `transformers` configuration of the model type assumes is assumed here, too,
    /// but for sizes that every checkpoint has.
    ///
    /// - Throws: `FileError` if the file can't be read, `ModelError` naming the field that is wrong or not supported.
    init(path: String) throws {
        let file = try ModelFolder.decode(File.self, path: path)
        try self.init(file, path: path)
    }

    private init(_ file: File, path: String) throws(ModelError) {
        func unsupported(_ message: String) -> ModelError { ModelError(.unsupported, path: path, message) }
        func damaged(_ message: String) -> ModelError {
            ModelError(.damaged, path: path, "\(message); take the model's own file")
        }
        func size(
            _ value: Int?,
            _ name: String,
            default standard: Int? = nil,
            upTo largest: Int = Self.largestSize
        ) throws(ModelError) -> Int {
            guard let value = value ?? standard else { throw damaged("\(name) is missing") }
            guard (1...largest).contains(value) else { throw damaged("\(name) is \(value), must be 1...\(largest)") }
            return value
        }

        let known = Family.allCases.map(\.rawValue).joined(separator: ", ")
        guard let type = file.modelType else { throw damaged("model_type is missing; it must be one of \(known)") }
        guard let family = Family(rawValue: type) else {
            throw unsupported("model_type '\(type)' is not supported; supported are \(known)")
        }
        if let activation = file.hiddenActivation, activation != "silu" {
            throw unsupported("hidden_act '\(activation)' is not supported; supported is silu")
        }
        if file.quantization != nil {
            throw unsupported("quantization_config: quantized weights are not supported; use F32, F16 or BF16 weights")
        }
        if let factor = file.partialRotaryFactor, factor != 1 {
            throw unsupported("partial_rotary_factor \(factor) is not supported; supported is 1")
        }
        self.family = family
        vocabularySize = try size(file.vocabularySize, "vocab_size")
        hiddenSize = try size(file.hiddenSize, "hidden_size", upTo: Self.largestWidth)
        intermediateSize = try size(file.intermediateSize, "intermediate_size", upTo: Self.largestWidth)
        maximumPositions = try size(file.maximumPositions, "max_position_embeddings")
        let layers = try size(file.layers, "num_hidden_layers")
        let queryHeads = try size(file.queryHeads, "num_attention_heads")
        let kvHeads = try size(
            file.kvHeads,
            "num_key_value_heads",
            default: family == .llama ? queryHeads : nil
        )
        if file.headDimension == nil && family != .qwen3 && hiddenSize % queryHeads != 0 {
            throw damaged("hidden_size \(hiddenSize) is no multiple of num_attention_heads \(queryHeads)")
        }
        let headDimension = try size(
            file.headDimension,
            "head_dim",
            default: family == .qwen3 ? 128 : hiddenSize / queryHeads
        )
        guard queryHeads <= Self.largestWidth / headDimension else {
            throw damaged("num_attention_heads \(queryHeads) of head_dim \(headDimension) are too many")
        }
        guard headDimension % 2 == 0 else {
            throw damaged("head_dim \(headDimension) is odd, so that it can't be rotated")
        }
        do {
            geometry = try CacheGeometry(
                layers: layers,
                queryHeads: queryHeads,
                kvHeads: kvHeads,
                headDimension: headDimension
            )
        } catch {
            throw damaged("\(error)")
        }
        let epsilon = file.normEpsilon ?? 1e-6
        guard epsilon >= 0, epsilon < 1 else {
            throw damaged("rms_norm_eps is \(epsilon), must be at least 0 and below 1")
        }
        normEpsilon = Float(epsilon)
        rotary = try RotaryEmbedding(file.rotary, headDimension: headDimension, path: path)
        slidingWindows = try Self.slidingWindows(file, family: family, layers: layers, path: path)
        tiesEmbeddings = file.tiesEmbeddings ?? false
        let attentionBias = file.attentionBias ?? false
        hasQueryKeyValueBias = family == .qwen2 || family != .mistral && attentionBias
        hasOutputBias = (family == .llama || family == .qwen3) && attentionBias
        hasFeedForwardBias = family == .llama && file.feedForwardBias ?? false
        normalizesQueriesAndKeys = family == .qwen3
        beginToken = file.beginToken
        endTokens = Set(file.endTokens?.ids ?? [])
    }

    private static func slidingWindows(
        _ file: File,
        family: Family,
        layers: Int,
        path: String
    ) throws(ModelError) -> [Int?] {
        let everyLayer = [Int?](repeating: nil, count: layers)
        if family == .llama { return everyLayer }
        let isUsed = family == .mistral || file.usesSlidingWindow ?? false
        let window = isUsed ? file.slidingWindow.value(default: 4096) : nil
        if let window, window < 1 {
            throw ModelError(.damaged, path: path, "sliding_window is \(window), must be positive or null")
        }
        if family == .mistral { return everyLayer.map { _ in window } }
        guard let types = file.layerTypes else {
            let full = file.fullAttentionLayers ?? 28
            return everyLayer.indices.map { $0 < full ? nil : window }
        }
        guard types.count == layers else {
            throw ModelError(
                .damaged,
                path: path,
                "layer_types names \(types.count) layers, num_hidden_layers \(layers)"
            )
        }
        return try types.map { type throws(ModelError) -> Int? in
            switch type {
            case "full_attention": return nil
            case "sliding_attention":
                guard let window else {
                    throw ModelError(.damaged, path: path, "layer_types has sliding_attention, and there is no window")
                }
                return window
            default:
                throw ModelError(.unsupported, path: path, "layer_types: '\(type)' is not supported")
            }
        }
    }
}

// MARK: - The file

private struct File: Decodable {
    /// `null` and a missing field, which mean different things.
    enum Window: Decodable {
        case missing, none
        case tokens(Int)

        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            self = container.decodeNil() ? .none : .tokens(try container.decode(Int.self))
        }

        func value(default standard: Int) -> Int? {
            switch self {
            case .missing: standard
            case .none: nil
            case .tokens(let count): count
            }
        }
    }

    let modelType: String?
    let vocabularySize: Int?
    let hiddenSize: Int?
    let intermediateSize: Int?
    let maximumPositions: Int?
    let originalPositions: Int?
    let layers: Int?
    let queryHeads: Int?
    let kvHeads: Int?
    let headDimension: Int?
    let hiddenActivation: String?
    let normEpsilon: Double?
    let rotaryBase: Double?
    let rotaryScaling: RotaryParameters?
    let rotaryParameters: RotaryParameters?
    let partialRotaryFactor: Double?
    let slidingWindow: Window
    let usesSlidingWindow: Bool?
    let fullAttentionLayers: Int?
    let layerTypes: [String]?
    let tiesEmbeddings: Bool?
    let attentionBias: Bool?
    let feedForwardBias: Bool?
    let beginToken: Int32?
    let endTokens: TokenList?
    let quantization: Anything?

    struct Anything: Decodable {
        init(from decoder: any Decoder) throws {}
    }

    enum CodingKeys: String, CodingKey {
        case modelType = "model_type"
        case vocabularySize = "vocab_size"
        case hiddenSize = "hidden_size"
        case intermediateSize = "intermediate_size"
        case maximumPositions = "max_position_embeddings"
        case originalPositions = "original_max_position_embeddings"
        case layers = "num_hidden_layers"
        case queryHeads = "num_attention_heads"
        case kvHeads = "num_key_value_heads"
        case headDimension = "head_dim"
        case hiddenActivation = "hidden_act"
        case normEpsilon = "rms_norm_eps"
        case rotaryBase = "rope_theta"
        case rotaryScaling = "rope_scaling"
        case rotaryParameters = "rope_parameters"
        case partialRotaryFactor = "partial_rotary_factor"
        case slidingWindow = "sliding_window"
        case usesSlidingWindow = "use_sliding_window"
        case fullAttentionLayers = "max_window_layers"
        case layerTypes = "layer_types"
        case tiesEmbeddings = "tie_word_embeddings"
        case attentionBias = "attention_bias"
        case feedForwardBias = "mlp_bias"
        case beginToken = "bos_token_id"
        case endTokens = "eos_token_id"
        case quantization = "quantization_config"
    }

    init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        func value<Value: Decodable>(_ key: CodingKeys) throws -> Value? {
            try container.decodeIfPresent(Value.self, forKey: key)
        }
        modelType = try value(.modelType)
        vocabularySize = try value(.vocabularySize)
        hiddenSize = try value(.hiddenSize)
        intermediateSize = try value(.intermediateSize)
        maximumPositions = try value(.maximumPositions)
        originalPositions = try value(.originalPositions)
        layers = try value(.layers)
        queryHeads = try value(.queryHeads)
        kvHeads = try value(.kvHeads)
        headDimension = try value(.headDimension)
        hiddenActivation = try value(.hiddenActivation)
        normEpsilon = try value(.normEpsilon)
        rotaryBase = try value(.rotaryBase)
        rotaryScaling = try value(.rotaryScaling)
        rotaryParameters = try value(.rotaryParameters)
        partialRotaryFactor = try value(.partialRotaryFactor)
        slidingWindow = container.contains(.slidingWindow) ? try value(.slidingWindow) ?? .none : .missing
        usesSlidingWindow = try value(.usesSlidingWindow)
        fullAttentionLayers = try value(.fullAttentionLayers)
        layerTypes = try value(.layerTypes)
        tiesEmbeddings = try value(.tiesEmbeddings)
        attentionBias = try value(.attentionBias)
        feedForwardBias = try value(.feedForwardBias)
        beginToken = try value(.beginToken)
        endTokens = try value(.endTokens)
        quantization = try value(.quantization)
    }

    /// The rotary parameters, of which the older spelling wins over the newer and what is inside over what is beside.
    var rotary: RotaryParameters {
        var parameters = rotaryScaling ?? rotaryParameters ?? RotaryParameters()
        parameters.base = parameters.base ?? rotaryBase
        parameters.originalPositions = originalPositions ?? parameters.originalPositions ?? maximumPositions
        return parameters
    }
}

/// One token id, or a list of them.
struct TokenList: Decodable {
    let ids: [Int32]

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let id = try? container.decode(Int32.self) {
            ids = [id]
        } else {
            ids = try container.decode([Int32].self)
        }
    }
}
