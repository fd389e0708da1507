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
        /// The SHA-256 of the profile that recipes were given, in hex; nil if there was none.
        public let profile: String?

        /// - Parameters:
        ///   - metadata: the model's, from `LlamaModel.metadata(producer:)`.
        ///   - prompts: the model's `chatForm`.
        ///   - profile: the SHA-256 of the profile that recipes are given, in hex.
        public init(
            metadata: [String: String],
            text: String,
            textBytes: RawSpan,
            prompts: ChatForm,
            seed: UInt64,
            profile: String? = nil
        ) {
            model = metadata["model.id", default: ""]
            fingerprint = metadata["model.fingerprint", default: ""]
            tokenizer = metadata["tokenizer.sha256", default: ""]
            self.text = text
            textChecksum = Kernels.checksum(textBytes)
            self.prompts = prompts
            self.seed = seed
            self.profile = profile
        }

        /// Whether outcomes are of the same model, text, prompts, seed and profile; names may differ.
        func isSame(as other: Subject) -> Bool {
            fingerprint == other.fingerprint && tokenizer == other.tokenizer && textChecksum == other.textChecksum
                && prompts == other.prompts && seed == other.seed && profile == other.profile
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
    private let file: JournalFile?

    /// A journal in memory.
    public init(subject: Subject) {
        self.subject = subject
        file = nil
    }

    /// Opens the journal at `path`, or begins one. A last line that was not written to its end is dropped.
    ///
    /// - Parameter access: who may use the file if it is begun.
    /// - Throws: `EvaluationError` if the file is no journal, or one of another model, text, form of prompts, seed
    ///   or profile; `FileError` if it can't be read or written.
    public init(path: String, access: FileAccess = .standard, subject: Subject) throws {
        self.subject = subject
        guard let file = try JournalFile(path: path, access: access) else { throw Self.foreign(path) }
        self.file = file
        try file.read(
            heading: Heading(format: Self.format, version: Self.version, subject: subject),
            check: { try Self.check($0, path: path, subject: subject) },
            remember: remember
        )
    }

    /// Checks the first line.
    private static func check(_ line: Data, path: String, subject: Subject) throws(EvaluationError) {
        let decoder = JSONDecoder()
        guard let kind = try? decoder.decode(Kind.self, from: line), kind.format == format else { throw foreign(path) }
        guard kind.version == version, let heading = try? decoder.decode(Heading.self, from: line) else {
            throw EvaluationError(
                path: path,
                "is a journal of version \(kind.version), whose prompts were others than those of version "
                    + "\(version), which this program reads; choose another name"
            )
        }
        guard heading.subject.isSame(as: subject) else {
            throw EvaluationError(
                path: path,
                "holds results of another model, text, form of prompts, seed or profile (\(heading.subject.model), "
                    + "\(heading.subject.text), \(heading.subject.prompts.rawValue)); choose another name"
            )
        }
    }

    private static func foreign(_ path: String) -> EvaluationError {
        EvaluationError(path: path, "is no journal of an evaluation; choose another name")
    }

    /// The outcome of a measurement, if it has been made.
    public func outcome(of key: TrialKey) -> TrialOutcome? { places[key].map { records[$0].outcome } }

    /// Keeps an outcome, which is on disk when this returns.
    ///
    /// - Parameter chosen: the plain recipe that the key's recipe chose; it is kept if it is another one.
    /// - Throws: `FileError` if it can't be written, or if the file was removed, replaced or changed meanwhile.
    public func add(_ outcome: TrialOutcome, for key: TrialKey, chosen: String? = nil) throws {
        let record = TrialRecord(key: key, chosen: chosen == key.recipe ? nil : chosen, outcome: outcome)
        try file?.append(record)
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
}

@available(*, unavailable)
extension EvaluationJournal: Sendable {}
