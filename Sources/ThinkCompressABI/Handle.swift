internal import Synchronization

/// An object that callers in C hold by an opaque pointer.
protocol Handle: AnyObject, Sendable {}

extension Handle {
    /// Gives the object to the caller, who frees it by `release`.
    func handOut() -> OpaquePointer {
        let pointer = unsafe OpaquePointer(Unmanaged.passRetained(self).toOpaque())
        unsafe LiveHandles.insert(pointer, Self.self)
        return unsafe pointer
    }

    /// The object behind an argument.
    static func borrow(_ pointer: OpaquePointer?, _ name: String) throws(Failure) -> Self {
        guard let pointer = unsafe pointer else { throw .null(name) }
        guard unsafe LiveHandles.contains(pointer, Self.self) else {
            throw .invalid("\(name) was freed, or never made")
        }
        return unsafe Unmanaged<Self>.fromOpaque(UnsafeRawPointer(pointer)).takeUnretainedValue()
    }

    /// Takes the object back from the caller.
    static func release(_ pointer: OpaquePointer?) {
        guard let pointer = unsafe pointer, unsafe LiveHandles.remove(pointer, Self.self) else { return }
        unsafe Unmanaged<Self>.fromOpaque(UnsafeRawPointer(pointer)).release()
    }
}

/// In debug builds the handles that were made and not freed, so that use of others is an error and no crash.
private enum LiveHandles {
    #if DEBUG
        /// The kind of each, by its address.
        private static let kinds = Mutex<[Int: ObjectIdentifier]>([:])
    #endif

    static func insert<Object: Handle>(_ pointer: OpaquePointer, _ kind: Object.Type) {
        #if DEBUG
            let address = Int(bitPattern: pointer)
            kinds.withLock { $0[address] = ObjectIdentifier(kind) }
        #endif
    }

    static func contains<Object: Handle>(_ pointer: OpaquePointer, _ kind: Object.Type) -> Bool {
        #if DEBUG
            let address = Int(bitPattern: pointer)
            return kinds.withLock { $0[address] == ObjectIdentifier(kind) }
        #else
            return true
        #endif
    }

    /// Whether the handle was there.
    static func remove<Object: Handle>(_ pointer: OpaquePointer, _ kind: Object.Type) -> Bool {
        #if DEBUG
            let address = Int(bitPattern: pointer)
            return kinds.withLock { kinds in
                guard kinds[address] == ObjectIdentifier(kind) else { return false }
                kinds[address] = nil
                return true
            }
        #else
            return true
        #endif
    }
}

/// Text that C may hold as long as this object lives.
@safe
final class CText: Sendable {
    // Never written to.
    nonisolated(unsafe) let pointer: UnsafePointer<CChar>

    init(_ text: String) {
        let bytes = text.utf8CString
        let copy = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count)
        for (index, byte) in bytes.enumerated() { unsafe (copy + index).initialize(to: byte) }
        unsafe pointer = UnsafePointer(copy)
    }

    deinit { unsafe pointer.deallocate() }
}
