/// Runs `body` for 0..<count, as many at a time as there are processors, or fewer if it is said.
///
/// After a failure no further index is begun; the failure of the lowest index is thrown, so errors don't depend on
/// timing. Cancelling the task ends the work with `CancellationError`.
package func forEachConcurrently(
    count: Int,
    atOnce: Int? = nil,
    progress: ProgressHandler? = nil,
    _ body: @escaping @Sendable (Int) throws -> Void
) async throws {
    let width = min(count, atOnce ?? SystemThread.processorCount)
    let failure = await withTaskGroup(of: Outcome.self) { group in
        var next = 0
        func begin() {
            let index = next
            next += 1
            group.addTask {
                do {
                    try body(index)
                    return Outcome(index: index, error: nil)
                } catch {
                    return Outcome(index: index, error: error)
                }
            }
        }
        for _ in 0..<width { begin() }
        var failure: Outcome?
        var done = 0
        for await outcome in group {
            done += 1
            progress?(Double(done) / Double(count))
            if outcome.error != nil && outcome.index < failure?.index ?? .max { failure = outcome }
            if failure == nil && !Task.isCancelled && next < count { begin() }
        }
        return failure
    }
    if let error = failure?.error { throw error }
    try Task.checkCancellation()
}

private struct Outcome: Sendable {
    let index: Int
    let error: (any Error)?
}
