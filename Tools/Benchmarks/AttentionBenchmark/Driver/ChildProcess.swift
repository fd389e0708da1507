import Foundation

/// A process that answers each line with a line.
final class ChildProcess {
    private let process = Process()
    private let input = Pipe()
    private let output = Pipe()
    private let errorPath: String
    private var received: [UInt8] = []

    /// Starts the process, whose standard error goes to a file in `folder`.
    init(executable: String, arguments: [String], environment: [String: String], folder: String) throws {
        // Writing to a process that has died is an error, not the end.
        signal(SIGPIPE, SIG_IGN)
        errorPath = folder + "/errors-\(UUID().uuidString)"
        try Data().write(to: URL(filePath: errorPath))
        process.executableURL = URL(filePath: executable)
        process.arguments = arguments
        process.environment = environment
        process.standardInput = input
        process.standardOutput = output
        process.standardError = FileHandle(forWritingAtPath: errorPath)
        try process.run()
    }

    deinit { end(waiting: 0) }

    /// Sends a line and waits for the answer.
    ///
    /// - Returns: what follows "ok".
    /// - Throws: `ChildError` if the process answers with an error, dies, or takes longer than `timeout` seconds; in
    ///   the last case it is killed.
    func ask(_ line: String, timeout: Double) throws -> String {
        do {
            try input.fileHandleForWriting.write(contentsOf: Data((line + "\n").utf8))
        } catch {
            throw ChildError(reasonOfDeath)
        }
        let deadline = ContinuousClock.now + .seconds(timeout)
        while true {
            if let end = received.firstIndex(of: UInt8(ascii: "\n")) {
                let answer = String(decoding: received[..<end], as: UTF8.self)
                received.removeSubrange(...end)
                return try content(of: answer)
            }
            try receive(until: deadline, timeout: timeout)
        }
    }

    /// Lets the process end with its input, and kills it if it doesn't.
    func end(waiting patience: Double = 5) {
        try? input.fileHandleForWriting.close()
        let deadline = ContinuousClock.now + .seconds(patience)
        while process.isRunning {
            if ContinuousClock.now >= deadline {
                kill(process.processIdentifier, SIGKILL)
                break
            }
            usleep(1000)
        }
    }

    private func content(of answer: String) throws -> String {
        let words = answer.split(separator: " ", maxSplits: 1)
        let rest = words.count > 1 ? String(words[1]) : ""
        switch words.first {
        case "ok": return rest
        case "error": throw ChildError(rest)
        default: throw ChildError("it answered: \(answer)")
        }
    }

    private func receive(until deadline: ContinuousClock.Instant, timeout: Double) throws {
        let remaining = (deadline - ContinuousClock.now) / .milliseconds(1)
        guard remaining > 0 else {
            end(waiting: 0)
            throw ChildError("no answer within \(Int(timeout)) s", isTimeout: true)
        }
        let descriptor = output.fileHandleForReading.fileDescriptor
        var events = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&events, 1, Int32(remaining) + 1) > 0 else { return }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = read(descriptor, &bytes, bytes.count)
        guard count > 0 else { throw ChildError(reasonOfDeath) }
        received += bytes[..<count]
    }

    /// The last line that the process has written to standard error.
    private var reasonOfDeath: String {
        end(waiting: 1)
        let text = (try? String(contentsOfFile: errorPath, encoding: .utf8)) ?? ""
        let last = text.split(whereSeparator: \.isNewline).last.map(String.init)
        return "it ended" + (last.map { ": \($0)" } ?? "")
    }
}

/// Why a child has not done what it was asked for.
struct ChildError: Error, CustomStringConvertible {
    let description: String
    /// Whether it has been killed because it took too long.
    let isTimeout: Bool

    init(_ description: String, isTimeout: Bool = false) {
        self.description = description
        self.isTimeout = isTimeout
    }
}
