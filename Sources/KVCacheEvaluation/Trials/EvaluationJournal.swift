internal import ByteStorage
internal import Foundation

/// The outcomes of an evaluation, kept in a file line by line so that one that was interrupted goes on where it stopped.
///
/// Source: Formats/evaluation.md.
public final class EvaluationJournal {
    static let format = "think-compress evaluation"
    static let version = 1

    /// What all outcomes of a journal share.
    public struct Subject: Codable, Sendable, Equatable {
        /// The model's name and fingerprint.
        public let model: String
        public let fingerprint: String
        /// The text's file name and the CRC-32C of its bytes.
        public let text: String
        public let textChecksum: UInt32
        /// What the trials' prompts follow from.
        public let seed: UInt64

        public init(model: String, fingerprint: String, text: String, textBytes: RawSpan, seed: UInt64) {
            self.model = model
            self.fingerprint = fingerprint
            self.text = text
            textChecksum = Kernels.checksum(textBytes)
            self.seed = seed
        }

        /// Whether outcomes are of the same model, text and seed; names may differ.
        func isSame(as other: Subject) -> Bool {
            fingerprint == other.fingerprint && textChecksum == other.textChecksum && seed == other.seed
        }
    }

    private struct Heading: Codable {
        var format: String
        var version: Int
        var subject: Subject
    }

    public let subject: Subject
    /// The outcomes in the order in which they were found.
    public private(set) var records: [TrialRecord] = []
    private var outcomes: [TrialKey: TrialOutcome] = [:]
    private let file: FileHandle?

    /// A journal in memory.
    public init(subject: Subject) {
        self.subject = subject
        file = nil
    }

    /// Opens the journal at `path`, or begins one. A last line that was not written to its end is dropped.
    ///
    /// - Throws: `EvaluationError` if the file is no journal, or one of another model, text or seed; what went wrong
    ///   with the file.
    public init(path: String, subject: Subject) throws {
        self.subject = subject
        let manager = FileManager.default
        if !manager.fileExists(atPath: path) {
            guard manager.createFile(atPath: path, contents: nil) else {
                throw EvaluationError("\(path): cannot create it; check the folder and its permissions")
            }
        }
        let handle: FileHandle
        let content: Data
        do {
            handle = try FileHandle(forUpdating: URL(filePath: path))
            content = try handle.readToEnd() ?? Data()
        } catch {
            throw EvaluationError("\(path): cannot be read and written; check the path and its permissions")
        }
        file = handle
        let complete = content.prefix((content.lastIndex(of: UInt8(ascii: "\n")) ?? -1) + 1)
        let lines = complete.split(separator: UInt8(ascii: "\n"))
        let decoder = JSONDecoder()
        for (index, line) in lines.enumerated() {
            if index == 0 {
                guard let heading = try? decoder.decode(Heading.self, from: line), heading.format == Self.format else {
                    throw EvaluationError("\(path): is no journal of an evaluation; choose another name")
                }
                guard heading.version == Self.version else {
                    throw EvaluationError(
                        "\(path): is of version \(heading.version), this program reads \(Self.version)"
                    )
                }
                guard heading.subject.isSame(as: subject) else {
                    throw EvaluationError(
                        "\(path): holds results of another model, text or seed (\(heading.subject.model), "
                            + "\(heading.subject.text)); choose another name"
                    )
                }
                continue
            }
            guard let record = try? decoder.decode(TrialRecord.self, from: line) else {
                throw EvaluationError("\(path): line \(index + 1) is damaged; remove it")
            }
            remember(record)
        }
        guard !lines.isEmpty || content.isEmpty else {
            throw EvaluationError("\(path): is no journal of an evaluation; choose another name")
        }
        try handle.truncate(atOffset: UInt64(complete.count))
        if lines.isEmpty { try write(Heading(format: Self.format, version: Self.version, subject: subject)) }
    }

    /// The outcome of a measurement, if it has been made.
    public func outcome(of key: TrialKey) -> TrialOutcome? { outcomes[key] }

    /// Keeps an outcome.
    ///
    /// - Throws: what went wrong with the file.
    public func add(_ outcome: TrialOutcome, for key: TrialKey) throws {
        let record = TrialRecord(key: key, outcome: outcome)
        try write(record)
        remember(record)
    }

    private func remember(_ record: TrialRecord) {
        records.append(record)
        outcomes[record.key] = record.outcome
    }

    private func write(_ value: some Encodable) throws {
        guard let file else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        try file.write(contentsOf: try encoder.encode(value) + Data("\n".utf8))
    }
}

@available(*, unavailable)
extension EvaluationJournal: Sendable {}

/// An evaluation that can't be made: why, and what to do.
public struct EvaluationError: Error, Sendable, Equatable, CustomStringConvertible {
    public let message: String

    public var description: String { message }

    init(_ message: String) {
        self.message = message
    }
}
