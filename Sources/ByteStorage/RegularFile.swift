#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// A regular file that is open for reading, and not empty.
struct RegularFile: ~Copyable, Sendable {
    let file: FileDescriptor
    let byteCount: Int

    /// - Throws: `FileError` if there is no such file, it can't be read, isn't a regular file, or is empty.
    init(path: String) throws(FileError) {
        // Without O_NONBLOCK a named pipe would wait for its writer.
        let file = try FileDescriptor(opening: path, flags: O_RDONLY | O_NONBLOCK, path: path, action: "open it")
        guard let status = file.status else { throw FileError(errorNumber: errno, path: path, action: "examine it") }
        guard status.isRegularFile else {
            let kind = status.st_mode & S_IFMT == S_IFDIR ? "a directory" : "not a regular file"
            throw FileError(.notRegularFile, path: path, message: "is \(kind); pass the path of a file")
        }
        guard status.st_size > 0 else {
            throw FileError(.empty, path: path, message: "is empty; it may be left from a copy that failed")
        }
        guard let byteCount = Int(exactly: status.st_size) else {
            throw FileError(errorNumber: EFBIG, path: path, action: "open it")
        }
        self.file = file
        self.byteCount = byteCount
    }
}
