/// A JSON text that isn't one, or whose content isn't what its reader needs: where, what is wrong, and what to do.
package struct JSONError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Code: Sendable {
        /// The text isn't JSON, or has something else than it must.
        case damaged
        /// The text is sound but asks for something that isn't supported.
        case unsupported
    }

    package let code: Code
    /// The field that is wrong, e.g. `model.merges[3]`; nil where it is the text as a whole.
    package let field: String?
    /// The file's byte where the fault is.
    package let offset: Int
    package let message: String

    package init(_ code: Code, field: String? = nil, at offset: Int, _ message: String) {
        self.code = code
        self.field = field
        self.offset = offset
        self.message = message
    }

    /// Everything but the offset.
    package var summary: String { field.map { "\($0): \(message)" } ?? message }

    package var description: String { "\(summary) (at byte \(offset))" }
}
