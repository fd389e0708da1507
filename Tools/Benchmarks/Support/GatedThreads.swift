import Foundation
import Synchronization

/// Threads that begin at the same moment.
public enum GatedThreads {
    /// Runs `body` on `count` threads, one of them the caller's, and returns the seconds from the moment when all are
    /// ready to the moment when all are done. Starting threads takes no part in it.
    ///
    /// - Throws: the first error that `body` throws.
    public static func seconds(count: Int, _ body: @escaping @Sendable (_ member: Int) throws -> Void) throws -> Double
    {
        let gate = Gate()
        for member in 1..<max(count, 1) {
            Thread.detachNewThread {
                gate.ready.add(1, ordering: .releasing)
                while !gate.isOpen.load(ordering: .acquiring) {}
                gate.run { try body(member) }
                gate.done.add(1, ordering: .releasing)
            }
        }
        while gate.ready.load(ordering: .acquiring) < count - 1 {}
        let start = ContinuousClock.now
        gate.isOpen.store(true, ordering: .releasing)
        gate.run { try body(0) }
        while gate.done.load(ordering: .acquiring) < count - 1 {}
        let duration = ContinuousClock.now - start
        if let error = gate.error.withLock({ $0 }) { throw error }
        return duration.inSeconds
    }

    private final class Gate: Sendable {
        let ready = Atomic<Int>(0)
        let isOpen = Atomic<Bool>(false)
        let done = Atomic<Int>(0)
        let error = Mutex<(any Error)?>(nil)

        func run(_ body: () throws -> Void) {
            do {
                try body()
            } catch {
                self.error.withLock { $0 = $0 ?? error }
            }
        }
    }
}
