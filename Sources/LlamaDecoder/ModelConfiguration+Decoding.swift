internal import JSONText
internal import KVCacheModel

extension ModelConfiguration {
    /// The largest number that a size may be, and a layer's width: far beyond any model, and far from overflow.
    static let largestSize = 1 << 24
    static let largestWidth = 1 << 18
    /// The largest number of layers, each of which costs memory before a weight is looked at; models have up to 130.
    static let largestLayers = 1 << 12
    /// How much of a word of the file an error repeats.
    private static let shownCharacters = 80

    /// Reads `config.json`.
    ///
    /// Formats/model.md says what becomes of every field. Where one is missing, what the `transformers` configuration
    /// of the model type assumes is assumed here, too, but for sizes that every checkpoint has.
    ///
    /// - Throws: `FileError` if the file can't be read, `ModelError` naming the field that is wrong or not supported.
    init(path: String) throws {
        let file = try ModelFolder.read(path) { object throws(JSONError) in try ConfigurationFile(object) }
        try self.init(file, path: path)
    }

    /// - Parameter path: the file that says it, for errors.
    init(_ file: ConfigurationFile, path: String) throws(ModelError) {
        func unsupported(_ message: String) -> ModelError { ModelError(.unsupported, path: path, message) }
        func damaged(_ message: String) -> ModelError {
            ModelError(.damaged, path: path, "\(message); take the model's own file")
        }
        // What the file calls a field.
        func name(_ field: String) -> String { file.keys[field] ?? field }
        func size(
            _ value: Int?,
            _ field: String,
            default standard: Int? = nil,
            upTo largest: Int = Self.largestSize
        ) throws(ModelError) -> Int {
            guard let value = value ?? standard else { throw damaged("\(name(field)) is missing") }
            guard (1...largest).contains(value) else {
                throw damaged("\(name(field)) is \(value), must be 1...\(largest)")
            }
            return value
        }

        let known = Family.allCases.map(\.rawValue).joined(separator: ", ")
        guard let type = file.modelType else { throw damaged("model_type is missing; it must be one of \(known)") }
        guard let family = Family(rawValue: type) else {
            throw unsupported(
                "model_type '\(type.prefix(Self.shownCharacters))' is not supported; supported are \(known)"
            )
        }
        self.family = family
        // What Gemma 3's multimodal checkpoints leave out of their text_config.
        let isGemma = family == .gemma3
        vocabularySize = try size(file.vocabularySize, "vocab_size", default: isGemma ? 262_208 : nil)
        hiddenSize = try size(file.hiddenSize, "hidden_size", upTo: Self.largestWidth)
        intermediateSize = try size(file.intermediateSize, "intermediate_size", upTo: Self.largestWidth)
        let positions = try size(
            file.maximumPositions,
            "max_position_embeddings",
            default: isGemma ? 131_072 : nil
        )
        let layers = try size(file.layers, "num_hidden_layers", upTo: Self.largestLayers)
        let queryHeads = try size(file.queryHeads, "num_attention_heads", default: isGemma ? 8 : nil)
        let kvHeads: Int
        switch file.kvHeads {
        case .value(let count): kvHeads = try size(count, "num_key_value_heads")
        case .null: kvHeads = queryHeads
        case .missing:
            kvHeads = try size(family == .llama ? queryHeads : isGemma ? 4 : nil, "num_key_value_heads")
        }
        let standardDimension = family == .qwen3 ? 128 : isGemma ? 256 : nil
        if file.headDimension ?? standardDimension == nil && hiddenSize % queryHeads != 0 {
            throw damaged(
                "\(name("hidden_size")) \(hiddenSize) is no multiple of \(name("num_attention_heads")) \(queryHeads)"
            )
        }
        let headDimension = try size(
            file.headDimension,
            "head_dim",
            default: standardDimension ?? hiddenSize / queryHeads
        )
        guard queryHeads <= Self.largestWidth / headDimension else {
            throw damaged(
                "\(name("num_attention_heads")) \(queryHeads) of \(name("head_dim")) \(headDimension) are too many"
            )
        }
        guard headDimension % 2 == 0 else {
            throw damaged("\(name("head_dim")) \(headDimension) is odd, so that it can't be rotated")
        }
        do {
            geometry = try CacheGeometry(
                layers: layers,
                queryHeads: queryHeads,
                kvHeads: kvHeads,
                headDimension: headDimension
            )
            attention = geometry.layers[0]
        } catch {
            throw damaged("\(name("num_attention_heads")) and \(name("num_key_value_heads")): \(error)")
        }
        let epsilon = file.normEpsilon ?? 1e-6
        guard epsilon >= 0, epsilon < 1 else {
            throw damaged("\(name("rms_norm_eps")) is \(epsilon), must be at least 0 and below 1")
        }
        normEpsilon = Float(epsilon)
        normOffset = Float(file.normOffset ?? (isGemma ? 1 : 0))
        let global = try RotaryEmbedding(
            file.rotary,
            headDimension: headDimension,
            standardBase: isGemma ? 1_000_000 : 10000,
            path: path
        )
        rotary = global
        localRotary = try file.localRotary.map { parameters throws(ModelError) in
            try RotaryEmbedding(parameters, headDimension: headDimension, path: path)
        }
        maximumPositions = global.maximumPositions(positions)
        let scalar = file.attentionScalar ?? (isGemma ? 256 : nil)
        if let scalar, !(scalar > 0 && scalar.isFinite) {
            throw damaged("\(name("query_pre_attn_scalar")) is \(scalar), must be positive")
        }
        attentionScale = isGemma && scalar != Double(headDimension) ? scalar.map { Float(1 / $0.squareRoot()) } : nil
        if let cap = file.logitSoftCap, !(1e-6...1e30).contains(cap) {
            throw damaged("\(name("final_logit_softcapping")) is \(cap), must be positive")
        }
        logitSoftCap = isGemma ? file.logitSoftCap.map { Float($0) } : nil
        slidingWindows = try Self.slidingWindows(file, family: family, layers: layers, path: path)
        tiesEmbeddings = file.tiesEmbeddings ?? isGemma
        let attentionBias = file.attentionBias ?? false
        hasQueryKeyValueBias = family == .qwen2 || family != .mistral && attentionBias
        hasOutputBias = (family == .llama || family == .qwen3 || isGemma) && attentionBias
        hasFeedForwardBias = family == .llama && file.feedForwardBias ?? false
        normalizesQueriesAndKeys = family == .qwen3 || isGemma
        normalizesOutputs = isGemma
        scalesEmbeddings = isGemma
        activation = isGemma ? .gelu : .silu
        beginToken = file.beginToken
        endTokens = file.endTokens
    }

    private static func slidingWindows(
        _ file: ConfigurationFile,
        family: Family,
        layers: Int,
        path: String
    ) throws(ModelError) -> [Int?] {
        let window: Int?
        switch (family, file.usesSlidingWindow ?? false, file.slidingWindow) {
        case (.llama, _, _), (.qwen2, false, _), (.qwen3, false, _), (_, _, .null): window = nil
        case (_, _, .missing): window = 4096
        case (_, _, .value(let tokens)): window = tokens
        }
        if let window, window < 1 {
            throw ModelError(.damaged, path: path, "sliding_window is \(window), must be positive or null")
        }
        let assumed: [Int?]
        switch family {
        case .llama, .mistral: assumed = [Int?](repeating: window, count: layers)
        case .qwen2, .qwen3:
            let full = file.fullAttentionLayers ?? 28
            assumed = (0..<layers).map { $0 < full ? nil : window }
        case .gemma3:
            let pattern = file.slidingWindowPattern ?? 6
            guard pattern > 0 else {
                throw ModelError(
                    .damaged,
                    path: path,
                    "sliding_window_pattern is \(pattern), must be positive; take the model's own file"
                )
            }
            if window == nil && file.layerTypes == nil {
                throw ModelError(.damaged, path: path, "sliding_window is null, and layers have one")
            }
            assumed = (0..<layers).map { ($0 + 1) % pattern == 0 ? nil : window }
        }
        guard let types = file.layerTypes else { return assumed }
        guard types.count == layers else {
            throw ModelError(
                .damaged,
                path: path,
                "layer_types names \(types.count) layers, num_hidden_layers \(layers)"
            )
        }
        let named = try types.map { value throws(ModelError) -> Int? in
            let type = (try? value.text()) ?? ""
            switch type {
            case "full_attention": return nil
            case "sliding_attention":
                guard let window else {
                    throw ModelError(.damaged, path: path, "layer_types has sliding_attention, and there is no window")
                }
                return window
            default:
                throw ModelError(
                    .unsupported,
                    path: path,
                    "layer_types: '\(type.prefix(shownCharacters))' is not supported"
                )
            }
        }
        // Llama and Mistral are the same in every layer, which these files then contradict.
        guard family == .qwen2 || family == .qwen3 || family == .gemma3 || named == assumed else {
            throw ModelError(
                .unsupported,
                path: path,
                "layer_types: layers that differ are not supported in a model of the type \(family.rawValue)"
            )
        }
        return named
    }
}
