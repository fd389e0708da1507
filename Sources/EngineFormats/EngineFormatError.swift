internal import JSONText

/// An engine's file that can't be read: what is wrong, where, and what to do.
public struct EngineFormatError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable {
        /// The file's structure is broken.
        case damaged
        /// The file is sound, but not what is asked for or of a kind that can't be read.
        case unsupported
    }

    public let code: Code
    /// The file's byte where the wrong field begins, if it is one place.
    public let offset: Int?
    /// The tensor that is wrong, if it is one.
    public let tensor: String?
    public let message: String

    public var description: String {
        var text = tensor.map { "tensor '\($0)': \(message)" } ?? message
        if let offset { text += " (at byte \(offset))" }
        return text
    }

    package init(_ code: Code, tensor: String? = nil, at offset: Int? = nil, _ message: String) {
        self.code = code
        self.tensor = tensor
        self.offset = offset
        self.message = message
    }

    /// An error of a safetensors file's header.
    init(_ error: JSONError) {
        self.init(
            error.code == .unsupported ? .unsupported : .damaged,
            at: error.offset,
            "the header is not what safetensors has: \(error.summary)"
        )
    }
}
