internal import Foundation
internal import Synchronization
internal import ThinkCompress

/// What commands print.
enum Console {
    static func printError(_ message: String) {
        let lines = message.split(separator: "\n", omittingEmptySubsequences: false).map { String($0).printable }
        writeNote("\(lineStart)think-compress: \(lines.joined(separator: "\n"))\n")
    }

    /// Prints a line.
    ///
    /// - Throws: what went wrong where standard output is a full disk or a closed pipe.
    static func print(_ text: String) throws {
        try write("\(text)\n")
    }

    /// Writes text as it is, without ending a line.
    static func write(_ text: String) throws {
        guard !StandardStream.output.write(text) else { return }
        throw FileError(
            .inputOutput,
            path: "standard output",
            message: "cannot be written; free some space, or send it elsewhere"
        )
    }

    /// Tells something beside the result, on standard error.
    static func printNote(_ text: String) {
        writeNote("\(lineStart)\(text)\n")
    }

    /// Removes what progress may have left on the line of a terminal.
    private static let lineStart = isatty(STDERR_FILENO) == 1 ? "\r\u{1B}[K" : ""

    /// Writes text as it is on standard error. Where that is full or closed nobody can be told, and the work matters
    /// more.
    static func writeNote(_ text: String) { _ = StandardStream.error.write(text) }

    /// Opens what is closed of the three standard streams, so that no other file gets its number.
    ///
    /// - Returns: whether all three are open.
    static func openMissingStreams() -> Bool { StandardStream.allCases.allSatisfy { $0.openIfClosed() } }

    /// Prints a value as JSON with camelCase keys, sorted: Formats/json.md.
    static func printJSON(_ value: some Encodable) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try print(String(decoding: try encoder.encode(value), as: UTF8.self))
    }

    /// A handler that shows progress on standard error, or nil if that is no terminal.
    ///
    /// - Parameters:
    ///   - total: how many things are done in all, to tell their rate; nil where only the share is of interest.
    ///   - unit: what they are.
    static func progress(_ activity: String, of total: Int? = nil, _ unit: String = "") -> ProgressHandler? {
        guard isatty(STDERR_FILENO) == 1 else { return nil }
        let start = ContinuousClock.now
        let shown = Mutex(-1)
        return ProgressHandler { fraction in
            let percent = Int(fraction * 100)
            let isNew = shown.withLock { last in
                defer { last = percent }
                return last != percent
            }
            guard isNew else { return }
            var text = "\r\(activity) \(percent) %"
            let elapsed = (ContinuousClock.now - start).seconds
            if elapsed > 1, fraction > 0 {
                if let total { text += ", \(Int(fraction * Double(total) / elapsed).grouped) \(unit) per second" }
                text += ", \(Int(elapsed / fraction - elapsed)) s left"
            }
            text += "\u{1B}[K"
            writeNote(percent < 100 ? text : "\r\u{1B}[K")
        }
    }
}
