#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// A file that grows at its end and that one process at a time writes to, such as a journal.
public final class AppendedFile {
    public let path: String
    private let file: FileDescriptor
    /// Where the next bytes go.
    private var end: Int

    /// Opens the file at `path`, or creates it, and locks it (`flock`) for as long as this object lives.
    ///
    /// - Parameter access: who may use it if it is created; one that exists keeps its permissions.
    /// - Throws: `FileError` if it can't be opened, isn't a regular file, or is held by another process.
    public init(path: String, access: FileAccess = .standard) throws(FileError) {
        let file = try Self.open(path, access: access)
        guard let status = file.status else { throw FileError(errorNumber: errno, path: path, action: "examine it") }
        guard status.isRegularFile, let end = Int(exactly: status.st_size) else {
            throw FileError(.notRegularFile, path: path, message: "is not a regular file; choose another name")
        }
        guard uninterrupted({ flock(file.number, LOCK_EX | LOCK_NB) }) == 0 else {
            if errno != EWOULDBLOCK { throw FileError(errorNumber: errno, path: path, action: "lock it") }
            throw FileError(
                .inUse,
                path: path,
                message: "another run is writing to it; wait for it or choose another name"
            )
        }
        self.path = path
        self.file = file
        self.end = end
    }

    private static func open(
        _ path: String,
        access: FileAccess
    ) throws(FileError) -> FileDescriptor {
        let action = "open it to write"
        do throws(FileError) {
            return try FileDescriptor(opening: path, flags: O_RDWR | O_NONBLOCK, path: path, action: action)
        } catch  where error.code == .notFound {
            let folder = try Folder(of: path)
            let file = try FileDescriptor(
                opening: path,
                flags: O_RDWR | O_CREAT | O_EXCL,
                permissions: access.initialPermissions(in: folder),
                path: path,
                action: action
            )
            try access.apply(to: file, replacing: nil, path: path)
            try folder.synchronizeName(of: path)
            return file
        }
    }

    /// Bytes of the file.
    public var byteCount: Int { end }

    /// Reads the whole file.
    public func content() throws(FileError) -> [UInt8] {
        var failure: Int32 = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: end) { buffer, count in
            while count < end {
                let rest = unsafe UnsafeMutableBufferPointer(rebasing: buffer[count...])
                let read = uninterrupted { unsafe pread(file.number, rest.baseAddress, end - count, off_t(count)) }
                if read < 0 { failure = errno }
                if read <= 0 { return }
                count += read
            }
        }
        if failure != 0 { throw FileError(errorNumber: failure, path: path, action: "read it") }
        return bytes
    }

    /// Keeps the first `count` bytes.
    public func truncate(to count: Int) throws(FileError) {
        precondition(count >= 0 && count <= end, "a file is truncated to some of its bytes")
        guard uninterrupted({ ftruncate(file.number, off_t(count)) }) == 0 else {
            throw FileError(errorNumber: errno, path: path, action: "write it")
        }
        end = count
    }

    /// Appends bytes, which are on disk when this returns.
    ///
    /// - Throws: `FileError` if they can't be written, of which no part is kept then; if they can't be brought to the disk;
    ///   or if the file was removed, replaced or written to by another program meanwhile.
    public func append(_ bytes: RawSpan) throws(FileError) {
        guard file.status?.st_size == off_t(end) else {
            throw changed("was written to by another program; restore it, or choose another name")
        }
        do throws(FileError) {
            try file.write(bytes, at: end, path: path)
        } catch {
            _ = ftruncate(file.number, off_t(end))
            throw error
        }
        end += bytes.byteCount
        let failure = synchronize(file.number)
        guard failure == 0 else { throw FileError(errorNumber: failure, path: path, action: "write it") }
        guard file.hasName(path) else {
            throw changed(
                "was removed or replaced while it was written, and what it held is lost; leave it, and run again"
            )
        }
    }

    private func changed(_ message: String) -> FileError { FileError(.changed, path: path, message: message) }
}

@available(*, unavailable)
extension AppendedFile: Sendable {}
