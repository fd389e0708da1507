internal import ByteStorage
internal import EngineFormats
internal import Foundation
internal import TextTokenization

/// What a model is read from.
protocol ModelSource: Sendable {
    /// What the model is called: `model.id` of its caches.
    var name: String { get }

    func configuration() throws -> ModelConfiguration
    func weights(_ configuration: ModelConfiguration) throws -> ModelWeights
    /// - Throws: `ModelError` if the tokenizer is not that of the model.
    func tokenizer(_ configuration: ModelConfiguration) throws -> Tokenizer
    /// The model's chat template in Jinja, if it has one.
    func chatTemplate() throws -> String?

    /// `model.fingerprint`, which every byte of the weights decides.
    func fingerprint(_ digests: FileDigests) throws -> String
    /// `tokenizer.sha256`, which everything decides that the tokenizer is made of.
    func tokenizerDigest(_ digests: FileDigests) throws -> String
}

extension ModelSource {
    /// The name of a path's last component.
    static func name(of path: String) -> String { URL(filePath: path).standardizedFileURL.lastPathComponent }
}

/// Finds out what is at a path.
///
/// - Throws: `FileError` if it is neither a folder nor a GGUF file, `ModelError` if it is a GGUF file without a model.
func modelSource(path: String) throws -> any ModelSource {
    let advice = "pass the directory of a model, or a GGUF file"
    var isDirectory: ObjCBool = false
    guard unsafe FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) else {
        throw FileError(.notFound, path: path, message: "does not exist; \(advice)")
    }
    if isDirectory.boolValue { return ModelFolder(path: path) }
    let bytes = try MappedFile.bytes(path: path)
    guard GGUFFile.isGGUF(bytes) else {
        throw FileError(.notRegularFile, path: path, message: "is neither a directory nor a GGUF file; \(advice)")
    }
    return try GGUFModel(path: path, bytes: bytes)
}
