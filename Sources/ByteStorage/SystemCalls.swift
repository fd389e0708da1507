#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// What a system call returns, which is made again for as long as signals interrupt it.
func uninterrupted<Result: SignedInteger>(_ call: () -> Result) -> Result {
    while true {
        let result = call()
        if result != -1 || errno != EINTR { return result }
    }
}

/// An open file, closed with its last use.
struct FileDescriptor: ~Copyable, Sendable {
    let number: Int32

    /// Takes over an open descriptor.
    init(_ number: Int32) {
        self.number = number
    }

    /// - Throws: `FileError` with the reason of the system, as one of `path`.
    init(opening name: String, flags: Int32, permissions: mode_t = 0, path: String, action: String) throws(FileError) {
        number = uninterrupted { unsafe open(name, flags | O_CLOEXEC, permissions) }
        guard number >= 0 else { throw FileError(errorNumber: errno, path: path, action: action) }
    }

    deinit {
        close(number)
    }

    /// What the system knows of the file; nil if it can't tell.
    var status: stat? {
        var status = stat()
        return unsafe fstat(number, &status) == 0 ? status : nil
    }

    /// Whether a path names this file.
    func hasName(_ path: String) -> Bool {
        guard let status else { return false }
        var named = stat()
        return unsafe stat(path, &named) == 0 && status.isSameFile(as: named)
    }

    /// Writes all of the bytes at an offset.
    func write(_ bytes: RawSpan, at offset: Int, path: String) throws(FileError) {
        unsafe try bytes.withUnsafeBytes { (buffer) throws(FileError) in
            var written = 0
            while written < buffer.count {
                let rest = unsafe UnsafeRawBufferPointer(rebasing: buffer[written...])
                let count = uninterrupted {
                    unsafe pwrite(number, rest.baseAddress, rest.count, off_t(offset + written))
                }
                guard count > 0 else {
                    throw FileError(errorNumber: count == 0 ? EIO : errno, path: path, action: "write it")
                }
                written += count
            }
        }
    }
}

/// Brings everything of a file to the disk itself, which fsync alone doesn't on Apple's systems.
///
/// - Returns: the number of what went wrong, 0 if nothing did. Where the system can't synchronize such a file at all (folders
///   of some network file systems), nothing can be said of it, and that is no error.
func synchronize(_ descriptor: Int32) -> Int32 {
    #if canImport(Darwin)
        if uninterrupted({ fcntl(descriptor, F_FULLFSYNC) }) == 0 { return 0 }
    #endif
    if uninterrupted({ fsync(descriptor) }) == 0 { return 0 }
    return [EINVAL, ENOTSUP, EOPNOTSUPP, ENOSYS].contains(errno) ? 0 : errno
}

extension stat {
    var isRegularFile: Bool { st_mode & S_IFMT == S_IFREG }

    func isSameFile(as other: stat) -> Bool { st_dev == other.st_dev && st_ino == other.st_ino }

    /// Who may do what.
    var permissions: mode_t { st_mode & 0o777 }
}
