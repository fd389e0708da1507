package import ByteStorage
internal import CThinkKernels
internal import Synchronization

/// Threads that attention and matrix products run on, and the memory that they work in, to be kept from step to step.
///
/// Between steps the threads wait spinning for a short while, since waking a sleeping thread may take longer than a
/// step, and then sleep. Steps that use the same workers at the same time take turns.
public final class WorkerThreads: Sendable {
    /// Threads that work, the caller's included: fewer than were asked for where no more could be started.
    public let threadCount: Int
    private let team: Team
    private let scratch: Mutex<AlignedBuffer?>

    /// - Parameters:
    ///   - threadCount: threads that work, the caller's included; at least 1, and nil for one per processor.
    ///   - spinning: how long a thread that has nothing to do waits before it sleeps.
    public init(threadCount: Int? = nil, spinning: Duration = .milliseconds(2)) {
        let wanted = threadCount ?? SystemThread.processorCount
        precondition(wanted > 0, "work needs a thread")
        let team = Team(spinning: spinning)
        self.team = team
        scratch = Mutex(nil)
        var started = 1
        while started < wanted {
            let member = started
            guard SystemThread.start({ team.help(as: member) }) else { break }
            started += 1
        }
        self.threadCount = started
        team.helperCount.store(started - 1, ordering: .relaxed)
    }

    deinit { team.dismiss() }

    /// Wakes threads that sleep, without waiting for them: for a step that is about to come. Does nothing while a step
    /// runs.
    public func wake() {
        _ = scratch.withLockIfAvailable { _ in team.wake() }
    }

    /// Runs `body` once on every thread, with the thread's number.
    package func run(_ body: (_ member: Int) -> Void) {
        scratch.withLock { _ in team.run(body) }
    }

    /// Runs `body` once on every thread, with the thread's number and memory of its own that is not cleared, and then,
    /// when all are done and while that memory is as it was left, `completion`.
    ///
    /// - Throws: `MemoryError` if there is no such memory; nothing has been run then.
    package func run(
        scratchBytes: Int,
        _ body: (_ member: Int, _ memory: UnsafeMutableRawPointer) -> Void,
        finally completion: () -> Void = {}
    ) throws(MemoryError) {
        let stride = (scratchBytes + AlignedBuffer.alignment - 1) / AlignedBuffer.alignment * AlignedBuffer.alignment
        try scratch.withLock { (former) throws(MemoryError) in
            let buffer: AlignedBuffer
            if let kept = former, kept.byteCount >= stride * threadCount {
                buffer = kept
            } else {
                former = nil
                buffer = try AlignedBuffer(byteCount: stride * threadCount)
                former = buffer
            }
            unsafe buffer.withUnsafeMutableBytes { bytes in
                guard let base = bytes.baseAddress else { return }
                team.run { member in unsafe body(member, base + member * stride) }
                completion()
            }
        }
    }
}

/// What the threads share.
private final class Team: Sendable {
    /// Set once, before the first piece of work.
    let helperCount = Atomic<Int>(0)
    private let spinning: Duration
    /// Counts the pieces of work; negative when there will be none any more.
    private let generation = Atomic<Int>(0)
    private let unfinished = Atomic<Int>(0)
    private let sleepers = Atomic<Int>(0)
    private let changes = ConditionLock()
    /// Written before `generation` changes and read after it was seen to have changed.
    private nonisolated(unsafe) var work: ((Int) -> Void)?

    init(spinning: Duration) {
        self.spinning = spinning
    }

    func run(_ body: (Int) -> Void) {
        guard helperCount.load(ordering: .relaxed) > 0 else { return body(0) }
        waitForHelpers()
        withoutActuallyEscaping(body) { escapable in
            unsafe work = escapable
            call()
            escapable(0)
            waitForHelpers()
            unsafe work = nil
        }
    }

    /// Gives the helpers nothing to do, for which they wake up.
    func wake() {
        if unfinished.load(ordering: .acquiring) == 0 { call() }
    }

    /// Lets the helpers do `work`.
    private func call() {
        unfinished.store(helperCount.load(ordering: .relaxed), ordering: .relaxed)
        generation.add(1, ordering: .sequentiallyConsistent)
        broadcast()
    }

    private func waitForHelpers() {
        while unfinished.load(ordering: .acquiring) > 0 {
            for _ in 0..<1024 where unfinished.load(ordering: .acquiring) > 0 { tck_spin_hint() }
            // A helper that has no processor gets this one.
            if unfinished.load(ordering: .acquiring) > 0 { SystemThread.yield() }
        }
    }

    func help(as member: Int) {
        var seen = 0
        while true {
            let now = waitForChange(from: seen)
            if now < 0 { return }
            seen = now
            unsafe work?(member)
            unfinished.subtract(1, ordering: .releasing)
        }
    }

    func dismiss() {
        generation.store(-1, ordering: .sequentiallyConsistent)
        broadcast()
    }

    /// Wakes those that sleep, or are about to: who goes to sleep says so first and then looks at `generation` again.
    private func broadcast() {
        guard sleepers.load(ordering: .sequentiallyConsistent) > 0 else { return }
        changes.withLock { changes.broadcast() }
    }

    private func waitForChange(from seen: Int) -> Int {
        // Looks at the clock now and then only: that is slower than looking at the generation.
        let deadline = ContinuousClock.now + spinning
        repeat {
            for _ in 0..<256 {
                let now = generation.load(ordering: .acquiring)
                if now != seen { return now }
                tck_spin_hint()
            }
            // Who else could run shall: perhaps it is the one that is waited for.
            SystemThread.yield()
        } while ContinuousClock.now < deadline
        return changes.withLock {
            sleepers.add(1, ordering: .sequentiallyConsistent)
            defer { sleepers.subtract(1, ordering: .sequentiallyConsistent) }
            while true {
                let now = generation.load(ordering: .sequentiallyConsistent)
                if now != seen { return now }
                changes.wait()
            }
        }
    }
}
