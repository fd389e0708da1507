internal import ByteStorage
internal import EngineFormats
internal import KVCacheModel

/// The weights of a model, mapped and in their own type.
struct ModelWeights: Sendable {
    struct Layer: Sendable {
        let attentionNorm: [Float]
        let query: Linear
        let key: Linear
        let value: Linear
        let output: Linear
        let queryNorm: [Float]?
        let keyNorm: [Float]?
        let feedForwardNorm: [Float]
        let gate: Linear
        let up: Linear
        let down: Linear
    }

    let embedding: WeightMatrix
    let layers: [Layer]
    let norm: [Float]
    let head: Linear

    /// Maps the weight files of a folder and finds every tensor that the configuration asks for.
    ///
    /// - Throws: `FileError` or `ModelError` if a file is missing or damaged, or a tensor is missing, of another shape
    ///   than the configuration says, or of a type that isn't F32, F16 or BF16.
    init(folder: ModelFolder, configuration: ModelConfiguration) throws {
        let tensors = try TensorFiles(folder: folder)
        let hidden = configuration.hiddenSize
        let wide = configuration.intermediateSize
        let queries = configuration.queryWidth
        let keys = configuration.keyValueWidth

        // Where both are there, they are used even by models that say they have one for both; where one is, it is both.
        let (embeddingName, headName) = ("model.embed_tokens", "lm_head")
        let isTied = configuration.tiesEmbeddings
        let hasEmbedding = !isTied || tensors.has("\(embeddingName).weight")
        let hasHead = !isTied || tensors.has("\(headName).weight")
        embedding = try tensors.matrix(
            "\(hasEmbedding ? embeddingName : headName).weight",
            rows: configuration.vocabularySize,
            columns: hidden
        )
        layers = try (0..<configuration.geometry.layers).map { layer in
            func name(_ part: String) -> String { "model.layers.\(layer).\(part)" }
            func linear(_ part: String, _ rows: Int, _ columns: Int, hasBias: Bool) throws -> Linear {
                try tensors.linear(name(part), rows: rows, columns: columns, hasBias: hasBias)
            }
            func norm(_ part: String, _ count: Int) throws -> [Float] {
                try tensors.vector(name(part + ".weight"), count: count)
            }
            let hasBias = configuration.hasQueryKeyValueBias
            let hasWideBias = configuration.hasFeedForwardBias
            let normalizes = configuration.normalizesQueriesAndKeys
            let dimension = configuration.geometry.headDimension
            return Layer(
                attentionNorm: try norm("input_layernorm", hidden),
                query: try linear("self_attn.q_proj", queries, hidden, hasBias: hasBias),
                key: try linear("self_attn.k_proj", keys, hidden, hasBias: hasBias),
                value: try linear("self_attn.v_proj", keys, hidden, hasBias: hasBias),
                output: try linear("self_attn.o_proj", hidden, queries, hasBias: configuration.hasOutputBias),
                queryNorm: normalizes ? try norm("self_attn.q_norm", dimension) : nil,
                keyNorm: normalizes ? try norm("self_attn.k_norm", dimension) : nil,
                feedForwardNorm: try norm("post_attention_layernorm", hidden),
                gate: try linear("mlp.gate_proj", wide, hidden, hasBias: hasWideBias),
                up: try linear("mlp.up_proj", wide, hidden, hasBias: hasWideBias),
                down: try linear("mlp.down_proj", hidden, wide, hasBias: hasWideBias)
            )
        }
        norm = try tensors.vector("model.norm.weight", count: hidden)
        head = try tensors.linear(
            hasHead ? headName : embeddingName,
            rows: configuration.vocabularySize,
            columns: hidden,
            hasBias: false
        )
    }
}

/// The tensors of all weight files, by name.
private struct TensorFiles {
    private struct Place {
        let path: String
        let tensor: SafetensorsFile.Tensor
    }

    private var places: [String: Place] = [:]
    /// What to name when a tensor is nowhere.
    private let summaryPath: String

    init(folder: ModelFolder) throws {
        let (names, index) = try folder.weightFiles()
        summaryPath = folder.file(index == nil ? ModelFolder.weightsName : ModelFolder.weightIndexName)
        for name in names {
            let path = folder.file(name)
            let file: SafetensorsFile
            do {
                file = try SafetensorsFile(MappedFile.bytes(path: path))
            } catch let error as FileError where error.code == .notFound {
                throw ModelError(
                    .damaged,
                    path: path,
                    index == nil
                        ? "is missing; a model has its weights in \(ModelFolder.weightsName), or in the files that "
                            + "\(ModelFolder.weightIndexName) names"
                        : "is missing, and \(ModelFolder.weightIndexName) names it; download all weight files"
                )
            } catch let error as EngineFormatError {
                throw ModelError(.damaged, path: path, "\(error); download it again")
            }
            for (tensor, content) in file.tensors {
                if let index, index[tensor] != name { continue }
                places[tensor] = Place(path: path, tensor: content)
            }
        }
        for (tensor, name) in (index ?? [:]).sorted(by: { $0.key < $1.key }) where places[tensor] == nil {
            throw ModelError(
                .damaged,
                path: folder.file(name),
                "has no tensor '\(tensor)', which \(ModelFolder.weightIndexName) says it has; download both again"
            )
        }
    }

    func has(_ name: String) -> Bool { places[name] != nil }

    func matrix(_ name: String, rows: Int, columns: Int) throws(ModelError) -> WeightMatrix {
        let (bytes, type) = try content(name, shape: [rows, columns])
        return WeightMatrix(bytes: bytes, elementType: type, rows: rows, columns: columns)
    }

    func linear(_ name: String, rows: Int, columns: Int, hasBias: Bool) throws(ModelError) -> Linear {
        let bias = "\(name).bias"
        if !hasBias, let place = places[bias] {
            throw ModelError(
                .unsupported,
                path: place.path,
                "tensor '\(bias)' is there, and \(ModelFolder.configurationName) says that there is no bias"
            )
        }
        return Linear(
            weights: try matrix("\(name).weight", rows: rows, columns: columns),
            bias: hasBias ? try vector(bias, count: rows) : nil
        )
    }

    func vector(_ name: String, count: Int) throws(ModelError) -> [Float] {
        let (bytes, type) = try content(name, shape: [count])
        var result = [Float](repeating: 0, count: count)
        let row = WeightMatrix(bytes: bytes, elementType: type, rows: 1, columns: count)
        unsafe result.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return }
            unsafe row.widen(from: 0, count: 1, into: base)
        }
        return result
    }

    private func content(_ name: String, shape: [Int]) throws(ModelError) -> (SharedBytes, ElementType) {
        guard let place = places[name] else {
            throw ModelError(.damaged, path: summaryPath, "the weights have no tensor '\(name)'")
        }
        guard place.tensor.shape == shape else {
            throw ModelError(
                .damaged,
                path: place.path,
                "tensor '\(name)' has the shape \(place.tensor.shape), and by \(ModelFolder.configurationName) it "
                    + "must be \(shape); one of the two files is of another model"
            )
        }
        guard let type = ElementType(name: place.tensor.elementType) else {
            let known = ElementType.allCases.map(\.name).joined(separator: ", ")
            throw ModelError(
                .unsupported,
                path: place.path,
                "tensor '\(name)' has the element type \(place.tensor.elementType); supported are \(known)"
            )
        }
        return (place.tensor.bytes, type)
    }
}
