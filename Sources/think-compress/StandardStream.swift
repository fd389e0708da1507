#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// The streams that a process begins with.
enum StandardStream: Int32, CaseIterable {
    case input, output, error

    /// Opens the stream on nothing if it is closed: reading from it is at the end at once, writing to it fails.
    ///
    /// A file that is opened later would get its number otherwise, and what is printed.
    ///
    /// - Returns: whether the stream is open.
    func openIfClosed() -> Bool {
        if fcntl(rawValue, F_GETFD) >= 0 { return true }
        // For reading only, so that writing fails as it does on a closed descriptor. The lowest free number is taken:
        // those below are open.
        return unsafe open("/dev/null", O_RDONLY) == rawValue
    }

    /// Writes a text.
    ///
    /// - Returns: whether all of it could be written; `errno` says why if not.
    func write(_ text: String) -> Bool {
        unsafe write(text.utf8.span.bytes)
    }

    /// Writes bytes.
    ///
    /// - Returns: whether all of them could be written; `errno` says why if not.
    func write(_ bytes: RawSpan) -> Bool {
        unsafe bytes.withUnsafeBytes { bytes in
            var written = 0
            while written < bytes.count {
                let rest = unsafe UnsafeRawBufferPointer(rebasing: bytes[written..<min(written + 1 << 20, bytes.count)])
                #if canImport(Glibc)
                    let count = unsafe Glibc.write(rawValue, rest.baseAddress, rest.count)
                #elseif canImport(Musl)
                    let count = unsafe Musl.write(rawValue, rest.baseAddress, rest.count)
                #else
                    let count = unsafe Darwin.write(rawValue, rest.baseAddress, rest.count)
                #endif
                if count < 0, errno == EAGAIN {
                    // Somebody else has made the pipe or terminal non-blocking.
                    var place = pollfd(fd: rawValue, events: Int16(POLLOUT), revents: 0)
                    unsafe poll(&place, 1, -1)
                } else if count < 0, errno != EINTR {
                    return false
                } else if count > 0 {
                    written += count
                }
            }
            return true
        }
    }
}
