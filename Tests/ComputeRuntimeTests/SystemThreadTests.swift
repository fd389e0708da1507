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
        let bell = Bell()
        let isDone = Atomic<Bool>(false)
        let hasStarted = SystemThread.start {
            bell.withLock {
                isDone.store(true, ordering: .sequentiallyConsistent)
                bell.ring()
            }
        }
        #expect(hasStarted)
        bell.withLock {
            while !isDone.load(ordering: .sequentiallyConsistent) { bell.wait() }
        }
    }

    @Test("a wait ends when its time has passed", arguments: [1, 20])
    func waitsNoLonger(milliseconds: Int) {
        let bell = Bell()
        let start = ContinuousClock.now
        bell.withLock { bell.wait(milliseconds: milliseconds) }
        #expect(ContinuousClock.now - start < .seconds(10))
    }
}
