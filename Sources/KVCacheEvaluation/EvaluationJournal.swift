public import ByteStorage
internal import ComputeRuntime
internal import Foundation
public import LlamaDecoder

/// The outcomes of an evaluation, kept in a file line by line so that one that was interrupted goes on where it stopped.
///
/// Source: Formats/evaluation.md.
public final class EvaluationJournal {
    static let format = "think-compress evaluation"
    static let version = 3
    /// Some million outcomes.
    private static let maximumBytes = 1 << 28

    /// What all outcomes of a journal share.
    public struct Subject: Codable, Sendable, Equatable {
        /// The model's name, its fingerprint, and the SHA-256 of its tokenizer.
        public let model: String
        public let fingerprint: String
        public let tokenizer: String
        /// The text's file name and the CRC-32C of its bytes.
        public let text: String
        public let textChecksum: UInt32
        /// How questions are put to the model.
        public let prompts: ChatForm
        /// What the trials' prompts follow from.
        public let seed: UInt64

        /// - Parameters:
        ///   - metadata: the model's, from `LlamaModel.metadata(producer:)`.
        ///   - prompts: the model's `chatForm`.
        public init(
            metadata: [String: String],
            text: String,
            textBytes: RawSpan,
            prompts: ChatForm,
            seed: UInt64
        ) {
            model = metadata["model.id", default: ""]
            fingerprint = metadata["model.fingerprint", default: ""]
            tokenizer = metadata["tokenizer.sha256", default: ""]
            self.text = text
            textChecksum = Kernels.checksum(textBytes)
            self.prompts = prompts
            self.seed = seed
        }

        /// Whether outcomes are of the same model, text, prompts and seed; names may differ.
        func isSame(as other: Subject) -> Bool {
            fingerprint == other.fingerprint && tokenizer == other.tokenizer && textChecksum == other.textChecksum
                && prompts == other.prompts && seed == other.seed
        }
    }

    /// What the first line of any version has.
    private struct Kind: Codable {
        var format: String
        var version: Int
    }

    private struct Heading: Codable {
        var format: String
        var version: Int
        var subject: Subject
    }

    public let subject: Subject
    /// The outcomes in the order in which they were found.
    public private(set) var records: [TrialRecord] = []
    /// Where in `records` each is.
    private var places: [TrialKey: Int] = [:]
    private let file: AppendedFile?

    /// A journal in memory.
    public init(subject: Subject) {
        self.subject = subject
        file = nil
    }

    /// Opens the journal at `path`, or begins one. A last line that was not written to its end is dropped.
    ///
    /// - Parameter access: who may use the file if it is begun.
    /// - Throws: `EvaluationError` if the file is no journal, or one of another model, text, form of prompts or seed;
    ///   `FileError` if it can't
    ///   be read or written.
    public init(path: String, access: FileAccess = .standard, subject: Subject) throws {
        self.subject = subject
        let file = try AppendedFile(path: path, access: access)
        guard file.byteCount <= Self.maximumBytes else {
            throw EvaluationError(path: path, "is no journal of an evaluation; choose another name")
        }
        self.file = file
        let content = try file.content()
        let complete = content.prefix((content.lastIndex(of: UInt8(ascii: "\n")) ?? -1) + 1)
        let lines = complete.split(separator: UInt8(ascii: "\n"))
        let decoder = JSONDecoder()
        for (index, line) in lines.enumerated() {
            if index == 0 {
                guard let kind = try? decoder.decode(Kind.self, from: Data(line)), kind.format == Self.format else {
                    throw EvaluationError(path: path, "is no journal of an evaluation; choose another name")
                }
                guard kind.version == Self.version, let heading = try? decoder.decode(Heading.self, from: Data(line))
                else {
                    throw EvaluationError(
                        path: path,
                        "is a journal of version \(kind.version), whose prompts were others than those of version "
                            + "\(Self.version), which this program reads; choose another name"
                    )
                }
                guard heading.subject.isSame(as: subject) else {
                    throw EvaluationError(
                        path: path,
                        "holds results of another model, text, form of prompts or seed (\(heading.subject.model), "
                            + "\(heading.subject.text), \(heading.subject.prompts.rawValue)); choose another name"
                    )
                }
                continue
            }
            guard let record = try? decoder.decode(TrialRecord.self, from: Data(line)), record.isPossible else {
                throw EvaluationError(path: path, "line \(index + 1) is damaged; remove it")
            }
            remember(record)
        }
        guard !lines.isEmpty || content.isEmpty else {
            throw EvaluationError(path: path, "is no journal of an evaluation; choose another name")
        }
        try file.truncate(to: complete.count)
        if lines.isEmpty { try write(Heading(format: Self.format, version: Self.version, subject: subject)) }
    }

    /// The outcome of a measurement, if it has been made.
    public func outcome(of key: TrialKey) -> TrialOutcome? { places[key].map { records[$0].outcome } }

    /// Keeps an outcome, which is on disk when this returns.
    ///
    /// - Throws: `FileError` if it can't be written, or if the file was removed, replaced or changed meanwhile.
    public func add(_ outcome: TrialOutcome, for key: TrialKey) throws {
        let record = TrialRecord(key: key, outcome: outcome)
        try write(record)
        remember(record)
    }

    private func remember(_ record: TrialRecord) {
        if let place = places[record.key] {
            records[place] = record
        } else {
            places[record.key] = records.count
            records.append(record)
        }
    }

    private func write(_ value: some Encodable) throws {
        guard let file else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let line = [UInt8](try encoder.encode(value)) + [UInt8(ascii: "\n")]
        unsafe try file.append(line.span.bytes)
    }
}

@available(*, unavailable)
extension EvaluationJournal: Sendable {}
