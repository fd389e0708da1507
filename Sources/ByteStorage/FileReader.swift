#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// A regular file that is read piece by piece into memory of the pieces' own.
///
/// What was read stays as it is, whatever happens to the file, so that bytes can be checked and then used. The file is
/// opened once: replacing it changes nothing.
public final class FileReader: Sendable {
    public let path: String
    /// The file's length when it was opened.
    public let byteCount: Int
    private let file: RegularFile

    /// Opens the file at `path`.
    ///
    /// - Throws: `FileError` if there is no such file, it can't be read, isn't a regular file, or is empty.
    public init(path: String) throws(FileError) {
        let file = try RegularFile(path: path)
        byteCount = file.byteCount
        self.path = path
        self.file = file
    }

    /// Reads a range of the file, which must lie inside of it.
    ///
    /// - Throws: `FileError` if it can't be read, or if the file's length has changed since it was opened.
    public func bytes(_ range: Range<Int>) throws(FileError) -> SharedBytes {
        precondition(range.lowerBound >= 0 && range.upperBound <= byteCount, "range outside of the file")
        let result: SharedBytes
        var done = 0
        var failure: Int32 = 0
        do {
            result = try SharedBytes(byteCount: range.count) { span in
                unsafe span.withUnsafeMutableBytes { bytes in
                    while done < bytes.count {
                        let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[done...])
                        let count = uninterrupted {
                            unsafe pread(file.file.number, rest.baseAddress, rest.count, off_t(range.lowerBound + done))
                        }
                        if count < 0 { failure = errno }
                        if count <= 0 { return }
                        done += count
                    }
                }
            }
        } catch {
            throw FileError(error, path: path)
        }
        if failure != 0 { throw FileError(errorNumber: failure, path: path, action: "read it") }
        guard let length = file.file.status?.st_size else {
            throw FileError(errorNumber: errno, path: path, action: "examine it")
        }
        guard length == byteCount, done == range.count else {
            throw FileError(
                .changed,
                path: path,
                message: "had \(byteCount) bytes when it was opened and has \(length) now; let nothing write to it, "
                    + "replace it by renaming another file to its name, and run again"
            )
        }
        return result
    }
}
