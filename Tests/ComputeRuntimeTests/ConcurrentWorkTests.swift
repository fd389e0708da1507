import TestSupport
import Testing
import ThinkCompress

/// `forEachConcurrently`.
@Suite struct ConcurrentWorkTests {
    private struct Failure: Error, Equatable {
        let index: Int
    }

    @Test("runs every index once", arguments: [0, 1, 2, 3, 100])
    func runsEveryIndex(count: Int) async throws {
        let indices = Recorder<Int>()
        try await forEachConcurrently(count: count) { indices.add($0) }
        #expect(indices.values.sorted() == Array(0..<count))
    }

    @Test("throws the failure of the lowest index, whatever fails first", arguments: 0..<20)
    func lowestFailureWins(repetition: Int) async {
        let error = await #expect(throws: Failure.self) {
            try await forEachConcurrently(count: 50) { index in
                // The lower of the two takes longer.
                if index == 6 { for _ in 0..<repetition * 1000 { _ = UInt64.random(in: 0...1) } }
                if index == 6 || index == 7 { throw Failure(index: index) }
            }
        }
        #expect(error == Failure(index: 6))
    }

    @Test("begins no index after a failure")
    func stopsAfterFailure() async {
        let indices = Recorder<Int>()
        await #expect(throws: Failure(index: 0)) {
            try await forEachConcurrently(count: 100_000) { index in
                indices.add(index)
                throw Failure(index: index)
            }
        }
        #expect(indices.values.count < 1000)
    }

    @Test("ends with a cancellation error when the task is cancelled")
    func cancels() async {
        let indices = Recorder<Int>()
        let task = Task {
            try await forEachConcurrently(count: 100_000) { index in
                indices.add(index)
                withUnsafeCurrentTask { $0?.cancel() }
            }
        }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(indices.values.count < 1000)
    }

    @Test("reports progress in order up to 1", arguments: [1, 2, 7, 64])
    func reportsProgress(count: Int) async throws {
        let fractions = Recorder<Double>()
        try await forEachConcurrently(count: count, progress: ProgressHandler { fractions.add($0) }) { _ in }
        #expect(fractions.values == (1...count).map { Double($0) / Double(count) })
    }

    @Test("reports a part's progress as that of the whole")
    func reportsParts() {
        let fractions = Recorder<Double>()
        let part = ProgressHandler { fractions.add($0) }.part(0.25...0.75)
        for fraction in [0, 0.5, 1] { part(fraction) }
        #expect(fractions.values == [0.25, 0.5, 0.75])
    }

    @Test("keeps results under their own index")
    func slots() async throws {
        let slots = Slots<Int>(count: 40)
        try await forEachConcurrently(count: 40) { slots[$0] = $0 * $0 }
        #expect(slots.values == (0..<40).map { $0 * $0 })
        #expect(slots[7] == 49)
    }
}
