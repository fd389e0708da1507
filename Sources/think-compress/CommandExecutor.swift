internal import CProcessGuard
internal import ComputeRuntime

/// Runs the command's tasks on the main thread and on others, as far as these can be started.
///
/// Swift's own executor works on libdispatch's threads, and waits for ever where the system has none to give.
@safe
final class CommandExecutor: TaskExecutor, @unchecked Sendable {
    // All under the lock of `changes`.
    private var jobs: [UnownedJob] = []
    /// Threads that wait for a job; the main thread will be one as soon as `runUntilFinished` is called.
    private var idle = 1
    private var threadsToStart = SystemThread.processorCount - 1
    private var isFinished = false
    private let changes = ConditionLock()

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        changes.withLock {
            jobs.append(job)
            if jobs.count <= idle {
                changes.broadcast()
            } else if threadsToStart > 0 {
                // Where one can't be started, the others do the work.
                threadsToStart = SystemThread.start({ self.serve() }) ? threadsToStart - 1 : 0
            }
        }
    }

    /// Lets `runUntilFinished` return; jobs that are left are not run.
    func finish() {
        changes.withLock {
            isFinished = true
            changes.broadcast()
        }
    }

    /// Runs jobs on the calling thread, the main one, until `finish` is called.
    ///
    /// - Parameter onInterruption: called once if a signal asks the process to end, as soon as this thread is between
    ///   two jobs: for the case that no other thread can tell.
    func runUntilFinished(onInterruption: () -> Void) {
        changes.withLock { idle -= 1 }
        var hasTold = false
        while true {
            if !hasTold, tcg_is_interrupted() {
                hasTold = true
                onInterruption()
            }
            guard let job = nextJob(waitingMilliseconds: hasTold ? nil : 100) else {
                if changes.withLock({ isFinished }) { return }
                continue
            }
            unsafe job.runSynchronously(on: asUnownedTaskExecutor())
        }
    }

    private func serve() {
        while let job = nextJob(waitingMilliseconds: nil) { unsafe job.runSynchronously(on: asUnownedTaskExecutor()) }
    }

    /// The next job, or nil when all is finished or the time has passed.
    private func nextJob(waitingMilliseconds: Int?) -> UnownedJob? {
        changes.withLock {
            idle += 1
            defer { idle -= 1 }
            while !isFinished {
                if !jobs.isEmpty { return jobs.removeFirst() }
                if let waitingMilliseconds {
                    changes.wait(milliseconds: waitingMilliseconds)
                    return isFinished || jobs.isEmpty ? nil : jobs.removeFirst()
                }
                changes.wait()
            }
            return nil
        }
    }
}
