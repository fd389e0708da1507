internal import CThinkCompress
internal import ComputeRuntime
internal import Synchronization

/// Threads that a caller may ask for; 0 is one per processor.
let threadCounts = 0...1024

/// Runs asynchronous work on the calling thread and as many others as the caller wants, until it is done.
///
/// The caller's progress callback is called on its own thread, and may cancel the work.
func runBlocking<Value: Sendable>(
    _ options: UnsafePointer<tc_run_options>?,
    _ work: @escaping @Sendable (ProgressHandler) async throws -> Value
) throws -> Value {
    let options = unsafe try sized(options, "options", absent: tc_run_options())
    let threads = unsafe options.threads
    try threadCounts.check(threads, "options.threads")
    let executor = CallerExecutor(threadCount: threads == 0 ? nil : threads)
    let fraction = Mutex(0.0)
    let outcome = Mutex<Result<Value, any Error>?>(nil)
    let task = Task(executorPreference: executor) {
        do {
            let value = try await work(ProgressHandler { done in fraction.withLock { $0 = max($0, done) } })
            outcome.withLock { $0 = .success(value) }
        } catch {
            outcome.withLock { $0 = .failure(error) }
        }
        executor.finish()
    }
    var told = -1.0
    executor.runUntilFinished {
        guard let progress = unsafe options.progress else { return }
        told = fraction.withLock { $0 }
        if unsafe progress(options.context, told) != 0 { task.cancel() }
    }
    guard let outcome = outcome.withLock({ $0 }) else {
        throw Failure(TC_INTERNAL, "the work ended without an outcome")
    }
    let value = try outcome.get()
    // The last piece of work may have been another thread's. It is too late to cancel then.
    let done = fraction.withLock { $0 }
    if told < done, let progress = unsafe options.progress { _ = unsafe progress(options.context, done) }
    return value
}
