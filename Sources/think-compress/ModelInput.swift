internal import ByteStorage
internal import Foundation
internal import LlamaDecoder
internal import TextTokenization
internal import ThinkCompress

/// Texts and models that commands take.
enum ModelInput {
    /// What computes the caches, for their metadata.
    static let producer = "think-compress \(ThinkCompressCommand.version)"

    /// The text of a file.
    ///
    /// - Throws: `FileError`, or `InputError` naming the first byte that is not UTF-8.
    static func text(of file: InputFile) async throws -> String {
        try await think_compress.about(file) {
            let content = unsafe try MappedFile.bytes(path: file.path).withUnsafeBytes { unsafe Array($0) }
            if let text = String(validating: content, as: UTF8.self) { return text }
            var decoder = UTF8()
            var iterator = content.makeIterator()
            var offset = 0
            while case .scalarValue(let scalar) = decoder.decode(&iterator) { offset += UTF8.width(scalar) }
            throw ContentError("is not UTF-8 (at byte \(offset)); convert it first")
        }
    }

    /// What tells caches of a model from those of others.
    static func metadata(of model: LlamaModel) throws -> [String: String] {
        try model.metadata(producer: producer, digests: .ofUser)
    }

    /// The files of a model's directory, or the file that it is.
    static func files(of model: String) -> [String] {
        guard let names = try? FileManager.default.contentsOfDirectory(atPath: model) else { return [model] }
        return names.map { "\(model)/\($0)" }
    }

    /// The prompt that a file and an argument give together, the file's text first.
    static func prompt(file: InputFile?, text: String?) async throws -> String {
        guard let file else { return text ?? "" }
        return try await Self.text(of: file) + (text ?? "")
    }

    /// Adds the name of the prompt or model to errors of tokens, and of what is computed from them.
    static func about<Result>(_ name: String, _ body: () async throws -> Result) async throws -> Result {
        try await think_compress.about(
            name,
            only: [ModelError.self, CodecError.self, KVCacheError.self, TokenizerError.self],
            body
        )
    }
}

/// The most memory that the process has had at a time, in bytes.
func peakMemoryByteCount() -> Int {
    var usage = rusage()
    #if canImport(Darwin)
        unsafe getrusage(RUSAGE_SELF, &usage)
        return usage.ru_maxrss
    #else
        unsafe getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return usage.ru_maxrss * 1024
    #endif
}

extension Duration {
    var seconds: Double { self / .seconds(1) }
}
