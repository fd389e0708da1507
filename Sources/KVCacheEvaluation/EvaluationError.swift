/// An evaluation that can't be made: why, and what to do.
public struct EvaluationError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The journal that is at fault; nil if it is the text, or what was asked of it.
    public let path: String?
    public let message: String

    public var description: String { path.map { "\($0): \(message)" } ?? message }

    init(path: String? = nil, _ message: String) {
        self.path = path
        self.message = message
    }
}
