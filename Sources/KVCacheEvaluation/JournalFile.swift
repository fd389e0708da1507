internal import ByteStorage
internal import Foundation

/// A file of JSON objects, one per line, that long work adds to as it goes.
final class JournalFile {
    /// Some million lines.
    private static let maximumBytes = 1 << 28

    private let file: AppendedFile
    /// The lines that were written to their end.
    let lines: [ArraySlice<UInt8>]
    /// Bytes up to the end of the last of them.
    private let completeBytes: Int

    /// Opens the file, or creates it.
    ///
    /// - Parameter access: who may use the file if it is created.
    /// - Throws: `FileError` if it can't be read or written; nil if it is too large for a journal, or has no whole line
    ///   though it isn't empty.
    init?(path: String, access: FileAccess) throws {
        file = try AppendedFile(path: path, access: access)
        guard file.byteCount <= Self.maximumBytes else { return nil }
        let content = try file.content()
        completeBytes = (content.lastIndex(of: UInt8(ascii: "\n")) ?? -1) + 1
        lines = content.prefix(completeBytes).split(separator: UInt8(ascii: "\n"))
        if lines.isEmpty && !content.isEmpty { return nil }
    }

    /// Removes a last line that was not written to its end.
    func removeUnfinishedLine() throws(FileError) { try file.truncate(to: completeBytes) }

    /// Adds a line, which is on disk when this returns.
    func append(_ value: some Encodable) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let line = [UInt8](try encoder.encode(value)) + [UInt8(ascii: "\n")]
        unsafe try file.append(line.span.bytes)
    }
}

@available(*, unavailable)
extension JournalFile: Sendable {}
