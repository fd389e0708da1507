/// What is wrong with an archive, or with what it is read or made by.
public struct ArchiveError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable {
        /// The plan breaks a rule.
        case invalidPlan
        /// A chunk's bytes are damaged.
        case damagedChunk
        /// A profile is needed, and another came, or none.
        case otherProfile
        /// The cache is one that archives can't hold.
        case unsupportedCache
        /// A step so small that a component's number exceeds what can be coded.
        case stepTooSmall
    }

    public let code: Code
    public let message: String
    /// Where a step is too small, one that the numbers that were looked at need.
    public let leastStep: Float?

    public var description: String { message }

    public init(_ code: Code, _ message: String, leastStep: Float? = nil) {
        self.code = code
        self.message = message
        self.leastStep = leastStep
    }
}
