internal import CThinkCompress
internal import ComputeRuntime
internal import Synchronization

/// Threads that a caller may ask for; 0 is one per processor.
let threadCounts = 0...1024

/// How long calls run, as the caller wants it.
@safe
struct RunOptions {
    /// Threads that work, the caller's included; nil for one per processor.
    let threads: Int?
    private let callback: tc_progress?
    private let context: UnsafeMutableRawPointer?

    init(_ options: UnsafePointer<tc_run_options>?) throws(Failure) {
        let options = unsafe try sized(options, "options", absent: tc_run_options())
        try unsafe threadCounts.check(options.threads, "options.threads")
        unsafe threads = options.threads == 0 ? nil : options.threads
        unsafe callback = options.progress
        unsafe context = unsafe options.context
    }

    /// Tells the caller.
    ///
    /// - Returns: whether the call is to end.
    func report(_ fraction: Double) -> Bool { unsafe callback.map { unsafe $0(context, fraction) != 0 } ?? false }
}

/// Runs asynchronous work on the calling thread and as many others as the caller wants, until it is done.
///
/// The caller's progress callback is called on its own thread, and may cancel the work.
func runBlocking<Value: Sendable>(
    _ options: UnsafePointer<tc_run_options>?,
    _ work: @escaping @Sendable (ProgressHandler) async throws -> Value
) throws -> Value {
    let options = unsafe try RunOptions(options)
    let executor = CallerExecutor(threadCount: options.threads)
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
        told = fraction.withLock { $0 }
        if options.report(told) { task.cancel() }
    }
    guard let outcome = outcome.withLock({ $0 }) else {
        throw Failure(TC_INTERNAL, "the work ended without an outcome")
    }
    let value = try outcome.get()
    // The last piece of work may have been another thread's. It is too late to cancel then.
    let done = fraction.withLock { $0 }
    if told < done { _ = options.report(done) }
    return value
}
