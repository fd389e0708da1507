internal import EngineFormats
internal import JSONText
internal import TextTokenization

/// A model that can't be run, or a prompt that it can't take: what is wrong, in which file, and what to do.
public struct ModelError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable {
        /// A file of the model is broken, or contradicts another.
        case damaged
        /// The model is of a kind that the decoder doesn't compute.
        case unsupported
        /// A snapshot or tokenizer belongs to another model.
        case mismatch
        /// The tokens can't be computed: none, too many, or unknown ids.
        case invalidTokens
    }

    public let code: Code
    /// The file that is at fault, if it is one.
    public let path: String?
    public let message: String

    public var description: String { path.map { "\($0): \(message)" } ?? message }

    public init(_ code: Code, path: String? = nil, _ message: String) {
        self.code = code
        self.path = path
        self.message = message
    }
    init(_ error: JSONError, path: String) {
        self.init(error.code == .unsupported ? .unsupported : .damaged, path: path, error.description)
    }

    init(_ error: EngineFormatError, path: String) {
        switch error.code {
        case .unsupported: self.init(.unsupported, path: path, error.description)
        case .damaged: self.init(.damaged, path: path, "\(error.description); download it again")
        }
    }

    init(_ error: TokenizerError, path: String) {
        self.init(error.code == .unsupported ? .unsupported : .damaged, path: path, error.description)
    }
}
