import Synchronization

/// Notes what concurrent work tells, in order.
public final class Recorder<Value: Sendable>: Sendable {
    private let storage = Mutex<[Value]>([])

    public init() {}

    public func add(_ value: Value) { storage.withLock { $0.append(value) } }

    public var values: [Value] { storage.withLock { $0 } }
}
