#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// What went wrong with a file, and what to do about it.
public struct FileError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable {
        case notFound, permissionDenied, notRegularFile, empty, alreadyExists, noSpace, inputOutput
        /// Another process writes to it.
        case inUse
        /// Another program changed, removed or replaced it while it was used.
        case changed
        /// It was written and has its name, but the disk didn't confirm that the name is there to stay.
        case notSynchronized
    }

    public let code: Code
    public let path: String
    /// What is wrong and what to do, without the path.
    public let message: String

    public var description: String { "\(path): \(message)" }

    public init(_ code: Code, path: String, message: String) {
        self.code = code
        self.path = path
        self.message = message
    }

    init(_ error: MemoryError, path: String) {
        self.init(.inputOutput, path: path, message: error.description)
    }

    /// The error that `errno` tells of, while doing `action`.
    init(errorNumber: Int32, path: String, action: String) {
        let reason = unsafe String(cString: strerror(errorNumber))
        switch errorNumber {
        case ENOENT, ENOTDIR:
            self.init(.notFound, path: path, message: "cannot \(action): \(reason); check the path")
        case EACCES, EPERM, EROFS:
            self.init(.permissionDenied, path: path, message: "cannot \(action): \(reason); check the permissions")
        case EEXIST:
            self.init(.alreadyExists, path: path, message: "exists already; choose another name or pass --force")
        case ENOSPC, EDQUOT, EFBIG:
            self.init(
                .noSpace,
                path: path,
                message: "cannot \(action): \(reason); free some space or choose another disk"
            )
        default:
            self.init(.inputOutput, path: path, message: "cannot \(action): \(reason)")
        }
    }
}
