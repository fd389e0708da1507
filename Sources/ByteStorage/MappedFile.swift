#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// A regular file mapped for reading; the mapping ends with the last user of its bytes.
///
/// Nothing is read until it is touched. A file that is cut short by another program while it is mapped ends the
/// process when the missing part is touched: replace files by renaming, as `AtomicFileWriter` does.
@safe
public final class MappedFile: Sendable {
    private nonisolated(unsafe) let base: UnsafeMutableRawPointer
    private let byteCount: Int

    /// Maps the file at `path` and returns its bytes.
    ///
    /// - Throws: `FileError` if there is no such file, it can't be read, isn't a regular file, or is empty.
    public static func bytes(path: String) throws(FileError) -> SharedBytes {
        let file = try MappedFile(path: path)
        return unsafe SharedBytes(owner: file, base: UnsafeRawPointer(file.base), count: file.byteCount)
    }

    private init(path: String) throws(FileError) {
        // Without O_NONBLOCK a named pipe would wait for its writer.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw FileError(errorNumber: errno, path: path, action: "open it") }
        defer { close(descriptor) }
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else {
            throw FileError(errorNumber: errno, path: path, action: "examine it")
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            let kind = status.st_mode & S_IFMT == S_IFDIR ? "a directory" : "not a regular file"
            throw FileError(.notRegularFile, path: path, message: "is \(kind); pass the path of a file")
        }
        guard status.st_size > 0 else {
            throw FileError(.empty, path: path, message: "is empty; it may be left from a copy that failed")
        }
        guard let size = Int(exactly: status.st_size),
            let mapping = unsafe mmap(nil, size, PROT_READ, MAP_PRIVATE, descriptor, 0),
            unsafe mapping != UnsafeMutableRawPointer(bitPattern: -1)
        else { throw FileError(errorNumber: errno, path: path, action: "map it") }
        unsafe base = unsafe mapping
        byteCount = size
    }

    deinit {
        unsafe munmap(base, byteCount)
    }
}
