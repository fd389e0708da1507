import Foundation
import Synchronization

/// A thread that holds a processor by doing nothing, while others are measured with one thread: what they have to
/// themselves then doesn't depend on whether the rest of the machine sleeps.
final class Spinner: Sendable {
    private let isWanted = Atomic<Bool>(true)

    init() {
        Thread.detachNewThread { [self] in
            while isWanted.load(ordering: .relaxed) {}
        }
    }

    func stop() { isWanted.store(false, ordering: .relaxed) }
}
