internal import ByteStorage
internal import Crypto
internal import EngineFormats
internal import Foundation
internal import KVCacheCodecs

/// The files of a model's directory, as Hugging Face lays them out.
struct ModelFolder: Sendable {
    static let configurationName = "config.json"
    static let generationName = "generation_config.json"
    static let tokenizerName = "tokenizer.json"
    static let tokenizerSettingsName = "tokenizer_config.json"
    static let weightsName = "model.safetensors"
    static let weightIndexName = "model.safetensors.index.json"

    /// More than any of the JSON files of a model has.
    private static let largestJSON = 32 << 20

    let path: String

    func file(_ name: String) -> String { path.hasSuffix("/") ? path + name : "\(path)/\(name)" }

    func has(_ name: String) -> Bool { FileManager.default.fileExists(atPath: file(name)) }

    /// Checks that there is such a directory.
    func check() throws(FileError) {
        var isDirectory: ObjCBool = false
        let exists = unsafe FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory)
        guard exists else {
            throw FileError(.notFound, path: path, message: "does not exist; pass the directory of a model")
        }
        guard isDirectory.boolValue else {
            throw FileError(.notRegularFile, path: path, message: "is no directory; pass the directory of a model")
        }
    }

    /// The bytes of a JSON file.
    static func data(path: String) throws -> Data {
        let bytes = try MappedFile.bytes(path: path)
        guard bytes.count <= largestJSON else {
            throw ModelError(.damaged, path: path, "has \(bytes.count) bytes, far too many for what it is")
        }
        return unsafe bytes.withUnsafeBytes { unsafe Data($0) }
    }

    /// Decodes a JSON file.
    static func decode<Value: Decodable>(_ type: Value.Type, path: String) throws -> Value {
        do {
            return try JSONDecoder().decode(type, from: try data(path: path))
        } catch let error as DecodingError {
            throw ModelError(.damaged, path: path, "\(error.summary); take the model's own file")
        }
    }

    // MARK: - Weights

    private struct Index: Decodable {
        let files: [String: String]

        enum CodingKeys: String, CodingKey { case files = "weight_map" }
    }

    /// The names of the weight files in byte order, and which tensor each is said to have, where an index says so.
    func weightFiles() throws -> (names: [String], places: [String: String]?) {
        if has(Self.weightsName) || !has(Self.weightIndexName) { return ([Self.weightsName], nil) }
        let path = file(Self.weightIndexName)
        let places = try Self.decode(Index.self, path: path).files
        let names = Set(places.values)
        guard !names.isEmpty else { throw ModelError(.damaged, path: path, "weight_map names no file") }
        for name in names where name.contains("/") || name.hasPrefix(".") || name.isEmpty {
            throw ModelError(.damaged, path: path, "weight_map names '\(name)', which is no file of the model's folder")
        }
        return (names.sorted { Array($0.utf8).lexicographicallyPrecedes(Array($1.utf8)) }, places)
    }

    // MARK: - Identity

    /// The SHA-256 of a file in hex.
    func digest(of name: String) throws -> String {
        let bytes = try MappedFile.bytes(path: file(name))
        var hash = SHA256()
        unsafe bytes.withUnsafeBytes { unsafe hash.update(bufferPointer: $0) }
        return hash.finalize().hex
    }

    /// `model.fingerprint`: the SHA-256 of what `sha256sum` prints for config.json and the weight files.
    ///
    /// `Tools/export-cache` computes the same for the dumps that it writes. The files are read by as many threads as
    /// there are processors.
    func fingerprint() throws -> String {
        let names = [Self.configurationName] + (try weightFiles().names)
        let digests = Slots<Result<String, any Error>>(count: names.count)
        SystemThread.forEach(count: names.count) { index in
            digests[index] = Result { try digest(of: names[index]) }
        }
        let text = try zip(names, digests.values).map { "\(try $1.get())  \($0)\n" }.joined()
        return SHA256.hash(data: Data(text.utf8)).hex
    }
}

extension Digest {
    fileprivate var hex: String {
        map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined()
    }
}
