internal import ByteStorage
internal import ComputeRuntime
internal import Crypto
internal import Foundation
internal import JSONText

/// The files of a model's directory, as Hugging Face lays them out.
struct ModelFolder: ModelSource {
    static let configurationName = "config.json"
    static let generationName = "generation_config.json"
    static let tokenizerName = "tokenizer.json"
    static let tokenizerSettingsName = "tokenizer_config.json"
    static let chatTemplateName = "chat_template.jinja"
    static let weightsName = "model.safetensors"
    static let weightIndexName = "model.safetensors.index.json"

    /// More than any of the JSON files of a model has, or its chat template.
    static let largestText = 32 << 20

    let path: String

    var name: String { Self.name(of: path) }

    func file(_ name: String) -> String { path.hasSuffix("/") ? path + name : "\(path)/\(name)" }

    func has(_ name: String) -> Bool { FileManager.default.fileExists(atPath: file(name)) }

    /// Maps a file that is read as a whole.
    ///
    /// - Throws: `FileError` if it can't be read, `ModelError` if it is far too long.
    static func bytes(of path: String) throws -> SharedBytes {
        let bytes = try MappedFile.bytes(path: path)
        guard bytes.count <= largestText else {
            throw ModelError(.damaged, path: path, "has \(bytes.count) bytes, far too many for what it is")
        }
        return bytes
    }

    /// Reads the object in a JSON file.
    ///
    /// - Throws: `FileError` if the file can't be read, `ModelError` if it isn't such an object or `body` refuses it.
    static func read<Value>(_ path: String, _ body: (JSONObject) throws(JSONError) -> Value) throws -> Value {
        let bytes = try bytes(of: path)
        do throws(JSONError) {
            return try body(JSONDocument(bytes, remedy: "take the model's own file").root.object())
        } catch {
            throw ModelError(error, path: path)
        }
    }

    func configuration() throws -> ModelConfiguration {
        var configuration = try ModelConfiguration(path: file(Self.configurationName))
        if has(Self.generationName) {
            configuration.endTokens.formUnion(try Self.read(file(Self.generationName), ConfigurationFile.endTokens))
        }
        return configuration
    }

    // MARK: - Weights

    func weights(_ configuration: ModelConfiguration) throws -> ModelWeights {
        try ModelWeights(TensorFiles(folder: self), configuration: configuration)
    }

    /// The weight files, and which tensor each is said to have.
    struct WeightFiles {
        /// In byte order.
        let names: [String]
        /// The index's `weight_map`, by tensor; nil where there is no index.
        let places: JSONObject?
    }

    func weightFiles() throws -> WeightFiles {
        if has(Self.weightsName) || !has(Self.weightIndexName) {
            return WeightFiles(names: [Self.weightsName], places: nil)
        }
        return try Self.read(file(Self.weightIndexName)) { object throws(JSONError) in
            let places = try object.required("weight_map").object()
            // By their bytes: a file system may have both where Unicode has one.
            var names: Set<[UInt8]> = []
            for member in places.members {
                let name = try member.value.bytes()
                guard !name.isEmpty, name.first != UInt8(ascii: "."), !name.contains(UInt8(ascii: "/")),
                    !name.contains(0)
                else {
                    throw member.value.wrong(
                        "names '\(try member.value.string())', which is no file of the model's folder"
                    )
                }
                names.insert(name)
            }
            guard !names.isEmpty else { throw places.value.wrong("names no file") }
            let sorted = names.sorted { $0.lexicographicallyPrecedes($1) }
            return WeightFiles(names: sorted.map { String(decoding: $0, as: UTF8.self) }, places: places)
        }
    }

    // MARK: - Identity

    func tokenizerDigest(_ digests: FileDigests) throws -> String {
        try digests.digest(path: file(Self.tokenizerName))
    }

    /// The SHA-256 of what `sha256sum` prints for config.json and the weight files.
    ///
    /// `Tools/export-cache` computes the same for the dumps that it writes. The files are read by as many threads as
    /// there are processors.
    func fingerprint(_ digests: FileDigests) throws -> String {
        let names = [Self.configurationName] + (try weightFiles().names)
        let results = Slots<Result<String, any Error>>(count: names.count)
        SystemThread.forEach(count: names.count) { index in
            results[index] = Result { try digests.digest(path: file(names[index])) }
        }
        let text = try zip(names, results.values).map { "\(try $1.get())  \($0)\n" }.joined()
        return SHA256.hash(data: Data(text.utf8)).hex
    }
}
