/// Runs tasks on the thread that waits for them and on others, as far as these can be started.
///
/// Swift's own executor works on libdispatch's threads, and waits for ever where the system has none to give.
@safe
package final class CallerExecutor: TaskExecutor, @unchecked Sendable {
    // All under the lock of `changes`.
    private var jobs: [UnownedJob] = []
    /// Threads that wait for a job; the caller's will be one as soon as `runUntilFinished` is called.
    private var idle = 1
    private var threadsToStart: Int
    private var isFinished = false
    private let changes = ConditionLock()

    /// - Parameter threadCount: threads that work, the caller's included; nil for one per processor.
    package init(threadCount: Int? = nil) {
        threadsToStart = max(threadCount ?? SystemThread.processorCount, 1) - 1
    }

    package func enqueue(_ job: consuming ExecutorJob) {
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
    package func finish() {
        changes.withLock {
            isFinished = true
            changes.broadcast()
        }
    }

    /// Runs jobs on the calling thread until `finish` is called.
    ///
    /// - Parameter betweenJobs: called on this thread before each job and about ten times a second while there is none:
    ///   for what no other thread can do.
    package func runUntilFinished(betweenJobs: () -> Void) {
        changes.withLock { idle -= 1 }
        while true {
            betweenJobs()
            guard let job = nextJob(waitingMilliseconds: 100) else {
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
