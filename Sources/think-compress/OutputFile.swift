internal import ByteStorage
internal import CProcessGuard
internal import Foundation
internal import ThinkCompress

/// A file that a command writes: under its name, or on standard output where the name is `-`.
///
/// Standard output gets the file when it is whole; until then it is a temporary one. What the command says beside it then
/// goes to standard error.
final class OutputFile: Sendable {
    /// What messages call it.
    let name: String
    /// Where it is to be written, by `AtomicFileWriter`.
    let path: String
    /// Whether a file of that name may be replaced.
    let replacesExisting: Bool
    let isStandardOutput: Bool
    /// The temporary file's place among those that are removed when the process ends at a bad moment.
    private let registration: Int32

    /// Checks that the file can be written, before there is work that would be lost.
    ///
    /// - Parameter inputs: files that must not be replaced because they are read.
    /// - Throws: `FileError` if it can't be.
    init(_ name: String, replacingExisting: Bool, inputs: [String] = []) throws(FileError) {
        isStandardOutput = name == StandardStreams.name
        if isStandardOutput {
            self.name = "standard output"
            path = "\(FileManager.default.temporaryDirectory.path)/think-compress-\(UUID().uuidString).output"
            replacesExisting = false
            registration = unsafe tcg_register_partial(path)
        } else {
            (self.name, path) = (name, name)
            replacesExisting = replacingExisting
            registration = TCG_NOT_COVERED
        }
        try AtomicFileWriter.checkDestination(path: path, replacingExisting: replacesExisting, inputs: inputs)
    }

    deinit {
        if isStandardOutput { unsafe unlink(path) }
        tcg_forget_partial(registration)
    }

    /// Sends the file, which has been written, to standard output if it is to go there.
    ///
    /// - Throws: `FileError` if standard output doesn't take it.
    func finish() throws(FileError) {
        guard isStandardOutput else { return }
        let content = try MappedFile.bytes(path: path)
        unsafe unlink(path)
        guard !StandardStream.output.write(content.span) else { return }
        let number = errno
        let reason = unsafe String(cString: strerror(number))
        throw FileError(
            number == ENOSPC ? .noSpace : .inputOutput,
            path: name,
            message: "cannot be written: \(reason); send it elsewhere, or name a file"
        )
    }

    /// Writes text as it is where the command's results go.
    func write(_ text: String) throws {
        if isStandardOutput { Console.writeNote(text) } else { try Console.write(text) }
    }

    /// Prints a line where the command's results go.
    func print(_ text: String) throws { try write("\(text)\n") }
}
