import ComputeRuntime
import Synchronization
import Testing

@Suite("Threads of the system")
struct SystemThreadTests {
    @Test("every number is handed out once", arguments: [0, 1, 2, 3, 1000])
    func sharesWork(count: Int) {
        let calls = Mutex([Int](repeating: 0, count: count))
        SystemThread.forEach(count: count) { index in calls.withLock { $0[index] += 1 } }
        #expect(calls.withLock { $0 } == [Int](repeating: 1, count: count))
    }

    @Test("a thread wakes another that waits")
    func rings() {
        let changes = ConditionLock()
        let isDone = Atomic<Bool>(false)
        let hasStarted = SystemThread.start {
            changes.withLock {
                isDone.store(true, ordering: .sequentiallyConsistent)
                changes.broadcast()
            }
        }
        #expect(hasStarted)
        changes.withLock {
            while !isDone.load(ordering: .sequentiallyConsistent) { changes.wait() }
        }
    }

    @Test("a wait ends when its time has passed", arguments: [1, 20])
    func waitsNoLonger(milliseconds: Int) {
        let changes = ConditionLock()
        let start = ContinuousClock.now
        changes.withLock { changes.wait(milliseconds: milliseconds) }
        #expect(ContinuousClock.now - start < .seconds(10))
    }
}
