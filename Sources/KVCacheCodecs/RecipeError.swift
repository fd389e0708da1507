/// A recipe that can't be read: what is wrong and the nearest right form.
public struct RecipeError: Error, Sendable, Equatable, CustomStringConvertible {
    public let message: String
    /// A recipe or stage that would be right in its place.
    public let suggestion: String?

    public var description: String { suggestion.map { "\(message); did you mean \($0)?" } ?? message }

    public init(_ message: String, suggestion: String? = nil) {
        self.message = message
        self.suggestion = suggestion
    }
}
