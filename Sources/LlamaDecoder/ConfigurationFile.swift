internal import JSONText

/// The fields of `config.json` that are used; Formats/model.md decides every one that `transformers` reads.
struct ConfigurationFile {
    /// `null` and a missing field, which mean different things.
    enum Size: Sendable {
        case missing, null
        case value(Int)
    }

    /// What the file calls fields, where it isn't as `config.json` does: for errors.
    let keys: [String: String]
    let modelType: String?
    let vocabularySize: Int?
    let hiddenSize: Int?
    let intermediateSize: Int?
    let maximumPositions: Int?
    let layers: Int?
    let queryHeads: Int?
    let kvHeads: Size
    let headDimension: Int?
    let normEpsilon: Double?
    /// What is added to the weights of norms; nil for what the model type assumes. Of files in JSON always nil.
    let normOffset: Double?
    /// The number whose root attention scores are divided by.
    let attentionScalar: Double?
    let logitSoftCap: Double?
    let rotary: RotaryParameters
    /// Of layers with a sliding window, where the file tells of both kinds.
    let localRotary: RotaryParameters?
    let slidingWindow: Size
    let usesSlidingWindow: Bool?
    let fullAttentionLayers: Int?
    /// Every so many layers one has full attention.
    let slidingWindowPattern: Int?
    let layerTypes: [JSONValue]?
    let tiesEmbeddings: Bool?
    let attentionBias: Bool?
    let feedForwardBias: Bool?
    let beginToken: Int32?
    let endTokens: Set<Int32>
}

extension ConfigurationFile {
    /// - Throws: `JSONError` naming a field that is of another type than it must, or that asks for something else than
    ///   the decoder computes.
    init(_ whole: JSONObject) throws(JSONError) {
        let object = try Self.textConfiguration(whole)
        func int(_ name: String) throws(JSONError) -> Int? { try object.optional(name)?.int() }
        func bool(_ name: String) throws(JSONError) -> Bool? { try object.optional(name)?.bool() }
        func distinguished(_ name: String) throws(JSONError) -> Size {
            guard let value = object[name] else { return .missing }
            return value.kind == .null ? .null : .value(try value.int())
        }
        keys = [:]
        modelType = try object.optional("model_type")?.text()
        let isGemma = modelType == ModelConfiguration.Family.gemma3.rawValue
        try Self.refuseUnsupported(object)
        if isGemma {
            try Self.checkActivation(object.optional("hidden_activation"), supported: ["gelu_pytorch_tanh"])
        } else {
            try Self.checkActivation(object.optional("hidden_act"), supported: ["silu", "swish"])
        }
        vocabularySize = try int("vocab_size")
        hiddenSize = try int("hidden_size")
        intermediateSize = try int("intermediate_size")
        maximumPositions = try int("max_position_embeddings")
        layers = try int("num_hidden_layers")
        queryHeads = try int("num_attention_heads")
        kvHeads = try distinguished("num_key_value_heads")
        headDimension = try int("head_dim")
        normEpsilon = try object.optional("rms_norm_eps")?.double()
        normOffset = nil
        attentionScalar = try object.optional("query_pre_attn_scalar")?.double()
        logitSoftCap = try object.optional("final_logit_softcapping")?.double()
        if isGemma {
            if let cap = object.optional("attn_logit_softcapping") {
                throw cap.fault("is not supported; Gemma 3 has no soft cap of attention", .unsupported)
            }
            let kinds = try RotaryParameters.ofKinds(configuration: object)
            (rotary, localRotary) = (kinds.full, kinds.sliding)
        } else {
            (rotary, localRotary) = (try RotaryParameters(configuration: object), nil)
        }
        slidingWindow = try distinguished("sliding_window")
        usesSlidingWindow = try bool("use_sliding_window")
        fullAttentionLayers = try int("max_window_layers")
        slidingWindowPattern = try int("sliding_window_pattern")
        layerTypes = try object.optional("layer_types").map { value throws(JSONError) in
            // One more than there may be is as wrong as a million more.
            let types = Array(try value.elements().prefix(ModelConfiguration.largestLayers + 1))
            for type in types { _ = try type.string() }
            return types
        }
        let outerTies = try whole.optional("tie_word_embeddings")?.bool()
        tiesEmbeddings = try bool("tie_word_embeddings") ?? outerTies
        attentionBias = try bool("attention_bias")
        feedForwardBias = try bool("mlp_bias")
        beginToken = try object.optional("bos_token_id")?.number()
        endTokens = try Self.endTokens(object).union(Self.endTokens(whole))
    }

    /// The part of a model's configuration that is of its text: `text_config` where it has other parts, too.
    private static func textConfiguration(_ object: JSONObject) throws(JSONError) -> JSONObject {
        guard try object.optional("model_type")?.text() == "gemma3" else { return object }
        try refuseUnsupported(object)
        return try object.required("text_config").object()
    }

    /// `eos_token_id`: one token id, or a list of them.
    static func endTokens(_ object: JSONObject) throws(JSONError) -> Set<Int32> {
        guard let value = object.optional("eos_token_id") else { return [] }
        guard value.kind == .array else { return [try value.number()] }
        var ids: Set<Int32> = []
        for id in try value.elements() { ids.insert(try id.number()) }
        return ids
    }

    // MARK: - What is refused

    /// Refuses fields by which the model computes something else, whatever the family.
    private static func refuseUnsupported(_ object: JSONObject) throws(JSONError) {
        try refuseQuantization(object)
        if let factor = object.optional("partial_rotary_factor") { try RotaryParameters.checkPartial(factor) }
        for (name, supported) in [
            ("is_causal", true), ("use_bidirectional_attention", false), ("is_encoder_decoder", false),
        ] {
            guard let value = object.optional(name), try value.bool() != supported else { continue }
            throw value.fault(
                "\(!supported) is not supported; the decoder computes causal attention alone",
                .unsupported
            )
        }
        if let value = object.optional("per_layer_config") {
            throw value.fault("is not supported; all layers must be of one shape", .unsupported)
        }
    }

    private static func checkActivation(_ value: JSONValue?, supported: [String]) throws(JSONError) {
        guard let value, try !supported.contains(value.text()) else { return }
        throw value.fault("'\(try value.string())' is not supported; supported is \(supported[0])", .unsupported)
    }

    private static func refuseQuantization(_ object: JSONObject) throws(JSONError) {
        // MLX writes both, with the same content.
        if let value = object.optional("quantization") {
            throw value.fault("weights quantized by MLX are not supported; \(unquantized)", .unsupported)
        }
        for name in ["quantization_config", "compression_config"] {
            guard let value = object.optional(name) else { continue }
            let method = value.kind == .object ? try value.optional("quant_method") : nil
            let by = (try? method?.string()).map { " by \($0)" } ?? ""
            throw value.fault("weights quantized\(by) are not supported; \(unquantized)", .unsupported)
        }
    }

    static let unquantized = "use the model's own weights, in F32, F16 or BF16"
}
