// Functions are named as the header names them.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CThinkCompress
internal import CThinkKernels
internal import ComputeRuntime
internal import Synchronization

private let version = CText(TC_VERSION)
private let statusNames = [
    "TC_OK", "TC_INVALID_ARGUMENT", "TC_INVALID_RECIPE", "TC_UNSUPPORTED", "TC_UNSUPPORTED_VALUE", "TC_WHOLE_ONLY",
    "TC_OUT_OF_MEMORY", "TC_CANCELLED", "TC_FILE_ERROR", "TC_FILE_EXISTS", "TC_DAMAGED", "TC_NOT_FOUND", "TC_INTERNAL",
    "TC_OTHER_MODEL", "TC_FILE_NOT_FOUND",
].map(CText.init)

@c @implementation
public func tc_version() -> UnsafePointer<CChar>? { unsafe version.pointer }

@c @implementation
public func tc_kernels() -> UnsafePointer<CChar>? { Kernels.areAvailable ? unsafe Kernels.best.name : nil }

@c @implementation
public func tc_status_name(_ status: tc_status) -> UnsafePointer<CChar>? {
    let number = Int(status.rawValue)
    return statusNames.indices.contains(number) ? unsafe statusNames[number].pointer : nil
}

@c @implementation
public func tc_last_error() -> UnsafePointer<CChar>? { unsafe tcl_last_error() }

// MARK: - Threads

final class WorkersHandle: Handle {
    let workers: WorkerThreads

    init(_ workers: WorkerThreads) { self.workers = workers }

    /// Those that calls without workers have left, for the next such call, one per processor at the most: clearing new
    /// memory to work in takes longer than the rest of what such a call adds to attention.
    private static let idle = Mutex<[WorkerThreads]>([])
    /// Asking the system takes longer than all else.
    private static let mostIdle = SystemThread.processorCount

    /// Lends the workers behind an argument, or for NULL the calling thread alone.
    static func withWorkers(
        _ pointer: OpaquePointer?,
        _ name: String,
        _ body: (WorkerThreads) throws -> Void
    ) throws {
        if let pointer = unsafe pointer { return try body(unsafe borrow(pointer, name).workers) }
        let workers = idle.withLock { $0.popLast() } ?? WorkerThreads(threadCount: 1)
        defer { idle.withLock { if $0.count < mostIdle { $0.append(workers) } } }
        try body(workers)
    }
}

@c @implementation
public func tc_workers_create(_ threads: Int, _ workers: UnsafeMutablePointer<OpaquePointer?>?) -> tc_status {
    unsafe statusOf(handingOut: workers, "workers") {
        try threadCounts.check(threads, "threads")
        return WorkersHandle(WorkerThreads(threadCount: threads == 0 ? nil : threads))
    }
}

@c @implementation
public func tc_workers_free(_ workers: OpaquePointer?) { unsafe WorkersHandle.release(workers) }
