internal import Synchronization

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
    let work = SharedWork(count: count, progress: progress)
    await withTaskGroup(of: Void.self) { group in
        for _ in 0..<min(count, atOnce ?? SystemThread.processorCount) {
            // Each takes one index after another: a task for each would wait longer for its thread than small work takes.
            group.addTask {
                var lastYield = ContinuousClock.now
                while !Task.isCancelled, let index = work.next() {
                    do {
                        try body(index)
                        work.finish()
                    } catch {
                        work.fail(index, error)
                    }
                    if ContinuousClock.now - lastYield > longestTurn {
                        await Task.yield()
                        lastYield = .now
                    }
                }
            }
        }
    }
    if let error = work.error { throw error }
    try Task.checkCancellation()
}

/// After so long a thread may do something else, such as to look whether its caller wants to cancel.
private let longestTurn = Duration.milliseconds(20)

/// Indices that several tasks take one after another.
private final class SharedWork: Sendable {
    private struct State {
        var next = 0
        var done = 0
        var failure: (index: Int, error: any Error)?
    }

    private let count: Int
    private let progress: ProgressHandler?
    private let state = Mutex(State())

    init(count: Int, progress: ProgressHandler?) {
        self.count = count
        self.progress = progress
    }

    /// The next index; nil if there is none, or one has failed.
    func next() -> Int? {
        state.withLock { state in
            guard state.failure == nil, state.next < count else { return nil }
            defer { state.next += 1 }
            return state.next
        }
    }

    func finish() {
        state.withLock { state in
            state.done += 1
            // Under the lock, so that fractions come in order.
            progress?(Double(state.done) / Double(count))
        }
    }

    func fail(_ index: Int, _ error: any Error) {
        state.withLock { state in
            if index < state.failure?.index ?? .max { state.failure = (index, error) }
        }
    }

    /// The failure of the lowest index.
    var error: (any Error)? { state.withLock { $0.failure?.error } }
}
