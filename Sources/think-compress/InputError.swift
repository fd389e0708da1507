internal import KVCacheEvaluation
internal import LlamaDecoder
internal import ThinkCompress

/// An error of an input's content, with the input's name.
struct InputError: Error, CustomStringConvertible {
    let path: String
    let underlying: any Error

    var description: String { "\(path): \(underlying)" }
}

/// What a command finds wrong with an input itself, to be thrown where `about` adds the name.
struct ContentError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// Adds the name of an input to errors that name no file: the one way in which errors of a command get it.
///
/// - Parameter types: the errors that are of this input, where not all are; others pass as they are.
func about<Result>(
    _ name: String,
    only types: [any Error.Type]? = nil,
    _ body: () async throws -> Result
) async throws -> Result {
    do {
        return try await body()
    } catch let error where !namesFile(error) && types?.contains(where: { $0 == type(of: error) }) ?? true {
        throw InputError(path: name, underlying: error)
    }
}

/// Adds what messages call a file: also where it was opened under another path.
func about<Result>(_ input: InputFile, _ body: () async throws -> Result) async throws -> Result {
    do {
        return try await about(input.name, body)
    } catch let error as FileError where error.path == input.path {
        throw FileError(error.code, path: input.name, message: error.message)
    }
}

/// Whether an error says which file it is about, or is about none.
private func namesFile(_ error: any Error) -> Bool {
    switch error {
    case is FileError, is InputError, is CancellationError: true
    case let error as ModelError: error.path != nil
    case let error as EvaluationError: error.path != nil
    default: false
    }
}
