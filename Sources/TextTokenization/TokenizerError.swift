internal import EngineFormats
internal import JSONText

/// A `tokenizer.json`, or the tokenizer of a GGUF file, that can't be used, or a text that its rules can't encode:
/// where, what is wrong, and what to do.
public struct TokenizerError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable {
        /// The file isn't JSON or GGUF, or contradicts itself.
        case damaged
        /// The file is sound but asks for something that isn't supported.
        case unsupported
        /// The text has a character that the vocabulary can't say, and the token for such characters is missing.
        case unknownCharacter
        /// A pattern of the file needs more work on this text than is sensible.
        case tooMuchWork
        /// The text is longer than can be encoded at once.
        case textTooLong
    }

    public let code: Code
    /// The field that is wrong, e.g. `pre_tokenizer.pretokenizers[0].type`, if it is one.
    public let field: String?
    /// The file's byte where the fault is, if it is known.
    public let offset: Int?
    /// What is wrong and what to do, without the field.
    public let message: String

    public var description: String {
        var text = field.map { "\($0): \(message)" } ?? message
        if let offset { text += " (at byte \(offset))" }
        return text
    }

    init(_ code: Code, field: String? = nil, at offset: Int? = nil, _ message: String) {
        self.code = code
        self.field = field
        self.offset = offset
        self.message = message
    }
    init(_ error: JSONError) {
        self.init(
            error.code == .unsupported ? .unsupported : .damaged,
            field: error.field,
            at: error.offset,
            error.message
        )
    }
    init(_ error: EngineFormatError) {
        self.init(error.code == .unsupported ? .unsupported : .damaged, at: error.offset, error.message)
    }
}
