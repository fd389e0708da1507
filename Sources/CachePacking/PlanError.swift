/// A plan that breaks a rule of Formats/snapshot.md, "PLAN": which, and at what part of the plan.
public struct PlanError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The part of a plan that a rule is broken at.
    public enum Place: Sendable, Equatable {
        case keyRunCount, meanCount
        /// Whether value channels are pruned.
        case valuePruning
        /// A byte of a coding that belongs to no plan yet.
        case coding(byte: Int)
        case valueCoding(byte: Int)
        case runCoding(run: Int, byte: Int)
        /// The number of a run's channels.
        case runCount(run: Int)
        /// A channel, counted over all runs.
        case channel(Int)
        /// The number of value channels that are listed, and one of them.
        case valueChannelCount
        case valueChannel(Int)
        case mean(Int)
        /// A channel's weight, a component's scale, and a number of the matrix, of a plan of components.
        case weight(Int)
        case scale(Int)
        case matrix(Int)
    }

    public let place: Place
    public let message: String

    public var description: String { message }

    public init(_ place: Place, _ message: String) {
        self.place = place
        self.message = message
    }
}
