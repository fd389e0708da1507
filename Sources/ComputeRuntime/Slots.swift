internal import Synchronization

/// Results of concurrent work, each written once under its own index.
package final class Slots<Value: Sendable>: Sendable {
    private let storage: Mutex<[Value?]>

    package init(count: Int) {
        storage = Mutex([Value?](repeating: nil, count: count))
    }

    package subscript(index: Int) -> Value? {
        get { storage.withLock { $0[index] } }
        set { storage.withLock { $0[index] = newValue } }
    }

    /// All results in order; every slot must have been written.
    package var values: [Value] {
        storage.withLock { slots in
            slots.map { value in
                guard let value else { preconditionFailure("every slot must have been written") }
                return value
            }
        }
    }
}
