internal import ByteStorage
internal import Foundation
internal import ThinkCompress

/// A file that a command reads: that of a path, or standard input where the name is `-`.
struct InputFile: Sendable {
    /// What messages call it.
    let name: String
    /// What is opened.
    let path: String

    /// Standard input is copied first, to a file that has no name any more: what reads the input maps it, and may do so
    /// more than once.
    ///
    /// - Throws: `FileError` if the copy can't be made; `CancellationError` if the task is cancelled meanwhile.
    init(_ name: String) throws {
        self.name = Self.displayName(of: name)
        guard name == StandardStreams.name else {
            path = name
            return
        }
        path = "/dev/fd/\(try Self.copy.get())"
    }

    private static let standardInput = "standard input"

    /// What messages call the file of a name.
    static func displayName(of name: String) -> String { name == StandardStreams.name ? standardInput : name }

    /// The copy's descriptor, which stays open: standard input can be read only once.
    private static let copy = Result { try copyStandardInput() }

    private static func copyStandardInput() throws -> Int32 {
        let folder = FileManager.default.temporaryDirectory.path
        let path = "\(folder)/think-compress-\(UUID().uuidString).input"
        let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw copyError(errno, folder: folder) }
        unsafe unlink(path)
        var isComplete = false
        defer { if !isComplete { close(descriptor) } }
        if isatty(STDIN_FILENO) == 1 { Console.printNote("reading standard input; Control-D ends it") }
        try unsafe withUnsafeTemporaryAllocation(byteCount: 1 << 16, alignment: 16) { buffer in
            while true {
                // Not to wait for a writer that says nothing when the user has given up.
                var waiting = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
                let ready = unsafe poll(&waiting, 1, 100)
                try Task.checkCancellation()
                if ready == 0 || ready < 0 && errno == EINTR { continue }
                let count = unsafe read(STDIN_FILENO, buffer.baseAddress, buffer.count)
                if count < 0 && (errno == EINTR || errno == EAGAIN) { continue }
                guard count >= 0 else {
                    throw FileError(
                        .inputOutput,
                        path: standardInput,
                        message: "cannot be read: \(reason(errno)); pass the name of a file"
                    )
                }
                if count == 0 { break }
                var written = 0
                while written < count {
                    let piece = unsafe UnsafeRawBufferPointer(rebasing: buffer[written..<count])
                    let added = unsafe Foundation.write(descriptor, piece.baseAddress, piece.count)
                    if added < 0 && errno == EINTR { continue }
                    guard added > 0 else { throw copyError(errno, folder: folder) }
                    written += added
                }
            }
        }
        isComplete = true
        return descriptor
    }

    private static func copyError(_ number: Int32, folder: String) -> FileError {
        FileError(
            number == ENOSPC || number == EDQUOT ? .noSpace : .inputOutput,
            path: standardInput,
            message: "cannot be copied to \(folder): \(reason(number)); set TMPDIR to a folder with room for it"
        )
    }

    private static func reason(_ number: Int32) -> String { unsafe String(cString: strerror(number)) }
}
