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
        let bytes = try await think_compress.about(file) { try MappedFile.bytes(path: file.path) }
        let content = unsafe bytes.withUnsafeBytes { unsafe Array($0) }
        if let text = String(validating: content, as: UTF8.self) { return text }
        var decoder = UTF8()
        var iterator = content.makeIterator()
        var offset = 0
        while case .scalarValue(let scalar) = decoder.decode(&iterator) { offset += UTF8.width(scalar) }
        throw InputError(
            path: file.name,
            underlying: TextError(message: "is not UTF-8 (at byte \(offset)); convert it first")
        )
    }

    /// The files of a model's directory.
    static func files(of model: String) -> [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: model)) ?? []
        return names.map { "\(model)/\($0)" }
    }

    /// The prompt that a file and an argument give together, the file's text first.
    static func prompt(file: InputFile?, text: String?) async throws -> String {
        guard let file else { return text ?? "" }
        return try await Self.text(of: file) + (text ?? "")
    }

    /// Adds what an error is about, unless it names a file itself.
    static func about<Result>(_ name: String, _ body: () async throws -> Result) async throws -> Result {
        do {
            return try await body()
        } catch let error as ModelError where error.path == nil {
            throw InputError(path: name, underlying: error)
        } catch let error where error is CodecError || error is KVCacheError || error is TokenizerError {
            throw InputError(path: name, underlying: error)
        }
    }

    private struct TextError: Error, CustomStringConvertible {
        let message: String
        var description: String { message }
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
