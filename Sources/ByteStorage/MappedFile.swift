internal import CProcessGuard

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// A regular file mapped for reading; the mapping ends with the last user of its bytes.
///
/// Nothing is read until it is touched, and what another program writes into the file meanwhile is seen: what was checked
/// may have changed when it is used. That assumes files that are replaced by renaming, as `AtomicFileWriter` does, and
/// never overwritten in place or cut short; `FileReader` assumes nothing. A missing part that is touched raises SIGBUS,
/// which ends the process (the command `think-compress` with a message that names the file).
@safe
public final class MappedFile: Sendable {
    private nonisolated(unsafe) let base: UnsafeMutableRawPointer
    private let byteCount: Int
    private let registration: Int32

    /// Maps the file at `path` and returns its bytes.
    ///
    /// - Throws: `FileError` if there is no such file, it can't be read, isn't a regular file, or is empty.
    public static func bytes(path: String) throws(FileError) -> SharedBytes {
        let file = try MappedFile(path: path)
        return unsafe SharedBytes(owner: file, base: UnsafeRawPointer(file.base), count: file.byteCount)
    }

    private init(path: String) throws(FileError) {
        let file = try RegularFile(path: path)
        let size = file.byteCount
        guard let mapping = unsafe mmap(nil, size, PROT_READ, MAP_PRIVATE, file.file.number, 0),
            unsafe mapping != UnsafeMutableRawPointer(bitPattern: -1)
        else { throw FileError(errorNumber: errno, path: path, action: "map it") }
        unsafe base = unsafe mapping
        byteCount = size
        registration = unsafe tcg_register_mapping(mapping, size, path)
    }

    deinit {
        tcg_forget_mapping(registration)
        unsafe munmap(base, byteCount)
    }
}
