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
    /// - Returns: whether all of it could be written.
    func write(_ text: String) -> Bool {
        var text = text
        return text.withUTF8 { bytes in
            var rest = unsafe bytes[...]
            while let first = unsafe UnsafeBufferPointer(rebasing: rest).baseAddress, unsafe !rest.isEmpty {
                #if canImport(Glibc)
                    let count = unsafe Glibc.write(rawValue, first, rest.count)
                #elseif canImport(Musl)
                    let count = unsafe Musl.write(rawValue, first, rest.count)
                #else
                    let count = unsafe Darwin.write(rawValue, first, rest.count)
                #endif
                if count < 0, errno == EAGAIN {
                    // Somebody else has made the pipe or terminal non-blocking.
                    var place = pollfd(fd: rawValue, events: Int16(POLLOUT), revents: 0)
                    unsafe poll(&place, 1, -1)
                } else if count < 0, errno != EINTR {
                    return false
                } else if count > 0 {
                    unsafe rest = unsafe rest.dropFirst(count)
                }
            }
            return true
        }
    }
}
