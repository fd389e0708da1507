internal import ByteStorage
internal import CThinkCompress
internal import CachePacking
internal import ComputeRuntime
internal import KVCacheCodecs
internal import KVCacheModel
internal import KVSnapshots

/// A call that failed: its status, and what `tc_last_error` tells.
struct Failure: Error {
    let status: tc_status
    let message: String

    init(_ status: tc_status, _ message: String) {
        self.status = status
        self.message = message
    }

    static func invalid(_ message: String) -> Failure { Failure(TC_INVALID_ARGUMENT, message) }

    static func null(_ name: String) -> Failure { .invalid("\(name) is NULL") }

    /// What an error of the library is to a caller in C.
    init(_ error: any Error) {
        switch error {
        case let error as Failure: self = error
        case is CancellationError: self.init(TC_CANCELLED, "the progress callback ended the call")
        case let error as RecipeError: self.init(TC_INVALID_RECIPE, error.description)
        case let error as KVCacheError: self.init(TC_INVALID_ARGUMENT, error.description)
        case let error as CodecError: self.init(Self.status(of: error.code), error.description)
        case let error as MemoryError: self.init(TC_OUT_OF_MEMORY, error.description)
        case let error as SnapshotWritingError: self.init(TC_UNSUPPORTED, error.description)
        case let error as SnapshotError where error.code == .isArchive: self.init(TC_UNSUPPORTED, error.description)
        case let error as SnapshotError: self.init(TC_DAMAGED, error.description)
        case let error as FileError where error.code == .alreadyExists:
            self.init(TC_FILE_EXISTS, "\(error.path): exists already; choose another name or set `replace`")
        case let error as FileError: self.init(Self.status(of: error.code), error.description)
        default: self.init(TC_INTERNAL, "\(error)")
        }
    }

    private static func status(of code: FileError.Code) -> tc_status {
        switch code {
        case .empty: TC_DAMAGED
        case .notFound: TC_FILE_NOT_FOUND
        default: TC_FILE_ERROR
        }
    }

    private static func status(of code: CodecError.Code) -> tc_status {
        switch code {
        case .unsupportedValue: TC_UNSUPPORTED_VALUE
        case .missingQueries, .missingBases, .elementTypeMismatch, .unsupportedPlan: TC_UNSUPPORTED
        case .shapeMismatch: TC_INVALID_ARGUMENT
        case .partialCache: TC_WHOLE_ONLY
        case .outOfMemory: TC_OUT_OF_MEMORY
        }
    }
}

/// Runs a call and tells how it ended: what every function with a status does.
func statusOf(_ call: () throws -> Void) -> tc_status {
    do {
        guard Kernels.areAvailable else {
            throw Failure(TC_UNSUPPORTED, "THINK_COMPRESS_KERNELS names no instruction set of this machine; unset it")
        }
        try call()
        return TC_OK
    } catch {
        let failure = Failure(error)
        unsafe tcl_set_last_error(failure.message)
        return failure.status
    }
}

/// Runs a call that hands out a handle, or NULL where it fails.
func statusOf<Object: Handle>(
    handingOut result: UnsafeMutablePointer<OpaquePointer?>?,
    _ name: String,
    _ make: () throws -> Object
) -> tc_status {
    // Before anything can fail.
    if let result = unsafe result { unsafe result.pointee = nil }
    return statusOf {
        guard let result = unsafe result else { throw Failure.null(name) }
        unsafe result.pointee = try make().handOut()
    }
}
