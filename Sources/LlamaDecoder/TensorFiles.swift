internal import ByteStorage
internal import ComputeRuntime
internal import EngineFormats
internal import JSONText
internal import KVCacheModel

/// The tensors of all weight files of a model's folder.
struct TensorFiles: TensorSource {
    let configurationName = ModelFolder.configurationName
    let shapeFault = "one of the two files is of another model"

    private struct Place {
        let path: String
        let tensor: SafetensorsFile.Tensor
    }

    private struct File {
        let path: String
        let content: SafetensorsFile
    }

    private let folder: ModelFolder
    private var files: [[UInt8]: File] = [:]
    /// Which file each tensor is in; nil where there is one file.
    private let index: JSONObject?

    /// - Throws: `FileError` or `ModelError` if a file is missing or damaged, or has not what the index says it has.
    init(folder: ModelFolder) throws {
        self.folder = folder
        let weights = try folder.weightFiles()
        index = weights.places
        for name in weights.names {
            let path = folder.file(name)
            do {
                files[Array(name.utf8)] = File(path: path, content: try SafetensorsFile(MappedFile.bytes(path: path)))
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
                throw ModelError(error, path: path)
            }
        }
        guard let places = weights.places else { return }
        for member in places.members {
            guard let file = files[(try? member.value.bytes()) ?? []],
                file.content.tensors[member.name.text] == nil
            else { continue }
            throw ModelError(
                .damaged,
                path: file.path,
                "has no tensor '\(member.name)', which \(ModelFolder.weightIndexName) says it has; download both again"
            )
        }
    }

    private func place(_ name: String) -> Place? {
        let fileName: [UInt8]?
        if let index { fileName = try? index[name]?.bytes() } else { fileName = Array(ModelFolder.weightsName.utf8) }
        guard let fileName, let file = files[fileName], let tensor = file.content.tensors[name] else { return nil }
        return Place(path: file.path, tensor: tensor)
    }

    func has(_ name: String) -> Bool { place(name) != nil }

    func tensor(_ name: String) throws(ModelError) -> StoredTensor? {
        guard let place = place(name) else { return nil }
        // Before the shape is looked at: packed weights have shapes of their own.
        guard let type = ElementType(name: place.tensor.elementType) else {
            let known = ElementType.allCases.map(\.name).joined(separator: ", ")
            throw ModelError(
                .unsupported,
                path: place.path,
                "tensor '\(name)' has the element type \(place.tensor.elementType.abbreviated), as quantized weights "
                    + "have; supported are \(known)"
            )
        }
        return StoredTensor(
            path: place.path,
            name: name,
            shape: place.tensor.shape,
            type: WeightType(type),
            bytes: place.tensor.bytes
        )
    }

    func missing(_ name: String) -> ModelError {
        let stem = name.split(separator: ".").dropLast().joined(separator: ".")
        for packed in ["qweight", "weight_packed"] {
            guard let place = place("\(stem).\(packed)") else { continue }
            return ModelError(
                .unsupported,
                path: place.path,
                "tensor '\(stem).\(packed)': quantized weights are not supported; \(ConfigurationFile.unquantized)"
            )
        }
        return ModelError(
            .damaged,
            path: folder.file(index == nil ? ModelFolder.weightsName : ModelFolder.weightIndexName),
            "the weights have no tensor '\(name)'"
        )
    }
}

extension WeightType {
    /// The type of weights that are stored as such numbers.
    fileprivate init(_ type: ElementType) {
        switch type {
        case .float32: self = .float32
        case .float16: self = .float16
        case .bfloat16: self = .bfloat16
        }
    }
}
