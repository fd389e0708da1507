internal import ByteStorage
internal import ComputeRuntime
internal import EngineFormats

extension ConfigurationFile {
    /// Takes from a GGUF file's metadata what `config.json` says of other models: Formats/gguf.md.
    ///
    /// - Throws: `EngineFormatError` naming a key that is missing or of another type than it must, or that asks for
    ///   something else than the decoder computes.
    init(_ model: GGUFModel) throws(EngineFormatError) {
        let keys = GGUFKeys(model)
        try keys.refuseUnsupported()
        let size = ModelConfiguration.largestSize
        let width = ModelConfiguration.largestWidth
        let layers = try keys.required("block_count").int(in: 1...ModelConfiguration.largestLayers)
        let heads = try keys.uniform("attention.head_count", in: 1...size)
        let hidden = try keys.required("embedding_length").int(in: 1...width)
        let tensors = model.file.tensors
        let metadata = model.file.metadata
        let isGemma = model.architecture == .gemma3

        guard let heads else { throw keys.missing("attention.head_count") }
        let keyLength = try keys["attention.key_length"]?.int(in: 1...size)
        guard keyLength != nil || hidden.isMultiple(of: heads) else {
            throw try keys.required("attention.head_count").fault(
                "is \(heads), and \(keys.names["hidden_size"] ?? "") \(hidden) is no multiple of it"
            )
        }
        let dimension = keyLength ?? hidden / heads
        for name in ["attention.value_length", "attention.key_length_swa", "attention.value_length_swa"] {
            guard let value = keys[name], try value.int() != dimension else { continue }
            throw value.fault("is \(try value.int()), which is not supported; supported is \(dimension)", .unsupported)
        }
        for name in ["rope.dimension_count", "rope.dimension_count_swa"] {
            guard let value = keys[name], try value.int() != dimension else { continue }
            throw value.fault(
                "is \(try value.int()), which is not supported; heads of \(dimension) channels are turned as a whole",
                .unsupported
            )
        }
        let tokens = try metadata.required("tokenizer.ggml.tokens")
        let vocabulary = try tokens.elements().count
        guard (1...size).contains(vocabulary) else {
            throw tokens.fault("has \(vocabulary) tokens, must have 1...\(size)")
        }
        var ends: Set<Int32> = []
        for name in ["eos", "eot", "eom"] {
            if let id = try metadata.tokenID(name, vocabularySize: vocabulary) { ends.insert(id) }
        }
        let window = try keys.window(layers: layers)

        self.keys = keys.names
        modelType = model.architecture.family.rawValue
        vocabularySize = vocabulary
        hiddenSize = hidden
        guard let wide = try keys.uniform("feed_forward_length", in: 1...width) else {
            throw keys.missing("feed_forward_length")
        }
        intermediateSize = wide
        let positions = try keys.required("context_length").int(in: 1...size)
        maximumPositions = positions
        self.layers = layers
        queryHeads = heads
        kvHeads = .value(try keys.uniform("attention.head_count_kv", in: 1...size) ?? heads)
        headDimension = dimension
        normEpsilon = try keys.required("attention.layer_norm_rms_epsilon").double()
        // Files have added it.
        normOffset = 0
        // Only the largest Gemma 3 differs, and files don't say so.
        attentionScalar = isGemma ? Double(layers == 62 ? hidden / heads : dimension) : nil
        logitSoftCap = isGemma ? try keys["final_logit_softcapping"]?.double() : nil
        rotary = try keys.rotary(positions: positions)
        localRotary = isGemma ? try keys.localRotary() : nil
        slidingWindow = window.map { .value($0.tokens) } ?? .null
        usesSlidingWindow = nil
        fullAttentionLayers = nil
        slidingWindowPattern = window?.pattern
        layerTypes = nil
        tiesEmbeddings = tensors["output.weight"] == nil
        attentionBias = tensors["blk.0.attn_q.bias"] != nil
        feedForwardBias = tensors["blk.0.ffn_gate.bias"] != nil
        beginToken = try metadata.tokenID("bos", vocabularySize: vocabulary)
        endTokens = ends
    }
}

/// The metadata of a model's architecture.
private struct GGUFKeys {
    private let model: GGUFModel
    private let prefix: String

    init(_ model: GGUFModel) {
        self.model = model
        prefix = "\(model.architecture.rawValue)."
    }

    subscript(name: String) -> GGUFValue? { model.file.metadata[prefix + name] }

    func required(_ name: String) throws(EngineFormatError) -> GGUFValue {
        try model.file.metadata.required(prefix + name)
    }

    func missing(_ name: String) -> EngineFormatError { model.file.metadata.missing(prefix + name) }

    /// A number that may be given for each layer, and must be the same for all.
    func uniform(_ name: String, in range: ClosedRange<Int>) throws(EngineFormatError) -> Int? {
        guard let value = self[name] else { return nil }
        guard value.kind == .array else { return try value.int(in: range) }
        var elements = try value.elements()
        guard let first = try elements.next()?.int(in: range) else { throw value.fault("is empty") }
        for element in elements where try element.int() != first {
            throw value.fault("differs between layers, which is not supported", .unsupported)
        }
        return first
    }

    /// What the metadata call the fields of `config.json` that errors of the configuration name.
    var names: [String: String] {
        [
            "hidden_size": "embedding_length", "num_attention_heads": "attention.head_count",
            "num_key_value_heads": "attention.head_count_kv", "head_dim": "attention.key_length",
            "rms_norm_eps": "attention.layer_norm_rms_epsilon", "query_pre_attn_scalar": "attention.scale",
            "final_logit_softcapping": "final_logit_softcapping", "sliding_window": "attention.sliding_window",
        ].mapValues { prefix + $0 }
    }

    // MARK: - What is refused

    /// Keys by which other models compute something else; 0 and false say nothing.
    private static let unsupported = [
        "expert_count", "nextn_predict_layers", "use_parallel_residual", "logit_scale", "embedding_scale",
        "residual_scale", "attn_logit_softcapping", "attention.scale", "attention.output_scale",
        "attention.value_scale", "attention.clamp_kqv", "attention.max_alibi_bias", "attention.temperature_length",
        "attention.temperature_scale", "attention.shared_kv_layers", "rope.scaling.alpha",
        "rope.scaling.yarn_log_multiplier", "num_loops", "swin_norm",
    ]
    /// The same, but for Gemma 3.
    private static let onlyOfGemma = [
        "attention.sliding_window", "attention.sliding_window_pattern", "final_logit_softcapping", "rope.freq_base_swa",
    ]

    func refuseUnsupported() throws(EngineFormatError) {
        for name in Self.unsupported + (model.architecture == .gemma3 ? [] : Self.onlyOfGemma) {
            guard let value = self[name] else { continue }
            let isNothing: Bool
            switch value.kind {
            case .bool: isNothing = try !value.bool()
            case .array, .string: isNothing = false
            default: isNothing = try value.double() == 0
            }
            guard isNothing else {
                throw value.fault("is not supported in a model of the architecture \(prefix.dropLast())", .unsupported)
            }
        }
        if let value = self["rope.dimension_sections"] { throw value.fault("is not supported", .unsupported) }
        if let value = self["attention.causal"], try !value.bool() {
            throw value.fault("is false, which is not supported; the decoder computes causal attention", .unsupported)
        }
    }

    // MARK: - Sliding windows

    /// The window of layers, and which they are: all but every layer of so many.
    func window(layers: Int) throws(EngineFormatError) -> (tokens: Int, pattern: Int)? {
        guard model.architecture == .gemma3 else { return nil }
        let size = ModelConfiguration.largestSize
        guard let tokens = try self["attention.sliding_window"]?.int(in: 0...size), tokens > 0 else {
            // Every layer is one without.
            return (1, 1)
        }
        guard let value = self["attention.sliding_window_pattern"] else { return (tokens, 6) }
        guard value.kind == .array else { return (tokens, try value.int(in: 1...size)) }
        var flags: [Bool] = []
        for element in try value.elements().prefix(ModelConfiguration.largestLayers) {
            flags.append(try element.bool())
        }
        let pattern = (1...layers + 1).first { pattern in
            flags.count == layers && flags.indices.allSatisfy { flags[$0] == (($0 + 1) % pattern != 0) }
        }
        guard let pattern else {
            throw value.fault(
                "is not supported: all \(layers) layers but every one of a number must have a window",
                .unsupported
            )
        }
        return (tokens, pattern)
    }

    // MARK: - Rotary embedding

    /// Of layers with a sliding window.
    func localRotary() throws(EngineFormatError) -> RotaryParameters {
        var rotary = RotaryParameters()
        (rotary.field, rotary.baseField) = (prefix + "rope", prefix + "rope.freq_base_swa")
        rotary.base = try self["rope.freq_base_swa"]?.double() ?? 10_000
        return rotary
    }

    /// - Parameter positions: `context_length`.
    func rotary(positions: Int) throws(EngineFormatError) -> RotaryParameters {
        func double(_ name: String) throws(EngineFormatError) -> Double? {
            try self["rope.scaling.\(name)"]?.double()
        }
        var rotary = RotaryParameters()
        (rotary.field, rotary.baseField) = (prefix + "rope.scaling", prefix + "rope.freq_base")
        rotary.base = try self["rope.freq_base"]?.double() ?? 10_000
        rotary.maximumPositions = positions
        rotary.originalPositions =
            try self["rope.scaling.original_context_length"]?.int(in: 1...ModelConfiguration.largestSize) ?? positions
        let stretch = self["rope.scaling.factor"] ?? self["rope.scale_linear"]
        let factor = try stretch?.double() ?? 0
        if let stretch, factor < 0 { throw stretch.fault("is \(factor), must be positive") }
        let type = try self["rope.scaling.type"]?.text() ?? "linear"
        switch type {
        case "none": break
        case "linear":
            // 0 is how llama.cpp says that there is none.
            if factor != 0 && factor != 1 { (rotary.type, rotary.factor) = (type, factor) }
        case "yarn":
            (rotary.type, rotary.factor) = (type, factor == 0 ? 1 : factor)
            rotary.betaFast = try double("yarn_beta_fast")
            rotary.betaSlow = try double("yarn_beta_slow")
            if let value = self["rope.scaling.yarn_ext_factor"], try value.double() != 1 {
                throw value.fault("is \(try value.double()), which is not supported; supported is 1", .unsupported)
            }
            try setAttentionFactor(of: &rotary)
        case "longrope":
            rotary.type = type
            rotary.shortFactors = try factors("rope_factors_short.weight")
            rotary.longFactors = try factors("rope_factors_long.weight")
            rotary.attentionFactor = try double("attn_factor") ?? 1
        default:
            throw try required("rope.scaling.type").fault(
                "is '\(type.abbreviated)', which is not supported; supported are none, linear, yarn, longrope",
                .unsupported
            )
        }
        if let factors = try factors("rope_freqs.weight") {
            guard rotary.type == nil else {
                throw EngineFormatError(
                    .unsupported,
                    tensor: "rope_freqs.weight",
                    "is not supported beside \(prefix)rope.scaling.type '\(type)'"
                )
            }
            rotary.pairFactors = factors
        }
        return rotary
    }

    /// `attn_factor` multiplies what follows from the factor, and `yarn_attn_factor` stands in its place.
    private func setAttentionFactor(of rotary: inout RotaryParameters) throws(EngineFormatError) {
        rotary.attentionFactor = try self["rope.scaling.yarn_attn_factor"]?.double()
        guard let value = self["rope.scaling.attn_factor"] else { return }
        let factor = try value.double()
        guard factor != 1 else { return }
        throw value.fault("is \(factor), which is not supported with yarn; supported is 1", .unsupported)
    }

    /// The numbers of a tensor that has one for each pair of channels.
    private func factors(_ name: String) throws(EngineFormatError) -> [Double]? {
        guard let tensor = model.file.tensors[name] else { return nil }
        let weights = try tensor.weights()
        guard weights.type == .float32, tensor.shape.count == 1, tensor.shape[0] <= ModelConfiguration.largestWidth
        else {
            throw EngineFormatError(
                .damaged,
                tensor: name,
                "has the type \(tensor.typeName) and the shape \(tensor.shape), must be F32 and a list"
            )
        }
        return unsafe weights.bytes.withUnsafeBytes { bytes in
            (0..<tensor.shape[0]).map { index in
                let bits = unsafe bytes.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self)
                return Double(Float(bitPattern: UInt32(littleEndian: bits)))
            }
        }
    }
}
