internal import ByteStorage
internal import Foundation

extension EvaluationJournal {
    /// Checks that a journal may be written at `path`, so that a long job can refuse before it begins. What a journal
    /// that exists holds is checked when it is opened.
    ///
    /// - Throws: `EvaluationError` if a file of that name can't be read and written; `FileError` if there is none and
    ///   none can be created.
    public static func checkDestination(path: String) throws {
        let descriptor = unsafe open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK)
        if descriptor >= 0 {
            close(descriptor)
            return
        }
        guard errno == ENOENT || errno == ENAMETOOLONG else {
            let reason = unsafe String(cString: strerror(errno))
            throw EvaluationError(path: path, "cannot be opened to be written: \(reason); choose another name")
        }
        try AtomicFileWriter.checkDestination(path: path, replacingExisting: false)
    }
}
