internal import Synchronization

#if canImport(FoundationEssentials)
    internal import FoundationEssentials
#else
    internal import Foundation
#endif

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// Threads whose start may fail, as under a limit of processes: work then goes on with those that there are.
///
/// Foundation's and libdispatch's threads don't tell, and what waits for them waits for ever.
package enum SystemThread {
    /// Memory for a thread's calls: deep enough for what is run here, and little of a limited address space.
    private static let stackBytes = 1 << 20

    /// Processors that this process may use.
    package static var processorCount: Int { ProcessInfo.processInfo.activeProcessorCount }

    /// Lets another thread have this one's processor.
    package static func yield() { _ = sched_yield() }

    /// Runs `body` on a thread of its own, which ends with it.
    ///
    /// - Returns: whether the thread could be started.
    package static func start(_ body: @escaping @Sendable () -> Void) -> Bool {
        var attributes = pthread_attr_t()
        guard unsafe pthread_attr_init(&attributes) == 0 else { return false }
        defer { unsafe pthread_attr_destroy(&attributes) }
        unsafe pthread_attr_setdetachstate(&attributes, CInt(PTHREAD_CREATE_DETACHED))
        unsafe pthread_attr_setstacksize(&attributes, stackBytes)
        let work = unsafe Unmanaged.passRetained(Work(body))
        #if canImport(Darwin)
            var thread: pthread_t?
        #else
            var thread = pthread_t()
        #endif
        let status = unsafe pthread_create(
            &thread,
            &attributes,
            { argument in
                #if canImport(Darwin)
                    unsafe Unmanaged<Work>.fromOpaque(argument).takeRetainedValue().body()
                #else
                    if let argument = unsafe argument {
                        unsafe Unmanaged<Work>.fromOpaque(argument).takeRetainedValue().body()
                    }
                #endif
                return nil
            },
            work.toOpaque()
        )
        if status != 0 { unsafe work.release() }
        return status == 0
    }

    /// Runs `body` for 0..<count on as many threads as there are processors, the caller's included, and waits for all.
    package static func forEach(count: Int, _ body: @escaping @Sendable (Int) -> Void) {
        let state = Shares(count: count)
        for _ in 1..<max(min(count, processorCount), 1) {
            guard start({ state.work(body) }) else { break }
        }
        state.work(body)
        state.waitForAll()
    }

    private final class Work: Sendable {
        let body: @Sendable () -> Void

        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    /// Hands out numbers; who comes late finds none left.
    private final class Shares: Sendable {
        private let count: Int
        private let next = Atomic<Int>(0)
        private let finished = Atomic<Int>(0)
        private let changes = ConditionLock()

        init(count: Int) { self.count = count }

        func work(_ body: (Int) -> Void) {
            while true {
                let index = next.add(1, ordering: .relaxed).oldValue
                guard index < count else { return }
                body(index)
                if finished.add(1, ordering: .acquiringAndReleasing).newValue == count {
                    changes.withLock { changes.broadcast() }
                }
            }
        }

        func waitForAll() {
            changes.withLock {
                while finished.load(ordering: .acquiring) < count { changes.wait() }
            }
        }
    }
}
