/// Tells somebody how much of a long job is done.
public struct ProgressHandler: Sendable {
    private let report: @Sendable (Double) -> Void

    /// - Parameter report: called in order with the fraction done, 0 to 1, from any thread.
    public init(_ report: @escaping @Sendable (Double) -> Void) {
        self.report = report
    }

    /// Tells that so much is done, 0 to 1.
    public func callAsFunction(_ fraction: Double) { report(fraction) }

    /// A handler for a part of the job, whose own 0 to 1 is `range` of the whole.
    public func part(_ range: ClosedRange<Double>) -> ProgressHandler {
        ProgressHandler { report(range.lowerBound + $0 * (range.upperBound - range.lowerBound)) }
    }
}
