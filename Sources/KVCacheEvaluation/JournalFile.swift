internal import ByteStorage
internal import Foundation

/// A line of a journal but the first.
protocol JournalRecord: Decodable {
    /// Whether the work can have given it.
    var isPossible: Bool { get }
}

/// A file of JSON objects, one per line, that long work adds to as it goes.
final class JournalFile {
    /// Some million lines.
    private static let maximumBytes = 1 << 28

    private let file: AppendedFile
    /// The lines that were written to their end.
    private let lines: [ArraySlice<UInt8>]
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

    /// Reads the lines, and makes the file ready to be added to: a last line that was not written to its end is removed,
    /// and an empty file gets its first line.
    ///
    /// - Parameters:
    ///   - heading: the first line of a new journal.
    ///   - check: throws if the first line is not one of this journal.
    ///   - remember: takes the other lines in order.
    /// - Throws: what `check` throws; `EvaluationError` that names a damaged line; `FileError` if the file can't be
    ///   written.
    func read<Record: JournalRecord>(
        heading: some Encodable,
        check: (Data) throws -> Void,
        remember: (Record) -> Void
    ) throws {
        let decoder = JSONDecoder()
        if let first = lines.first { try check(Data(first)) }
        for (index, line) in lines.enumerated().dropFirst() {
            guard let record = try? decoder.decode(Record.self, from: Data(line)), record.isPossible else {
                throw EvaluationError(path: file.path, "line \(index + 1) is damaged; remove it")
            }
            remember(record)
        }
        try file.truncate(to: completeBytes)
        if lines.isEmpty { try append(heading) }
    }

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
