public import ByteStorage
internal import Foundation

/// What was measured of a model's profile so far, kept in a file line by line so that a measurement that was interrupted
/// goes on where it stopped.
///
/// Source: Formats/profile.md, "The journal".
public final class ProfileJournal {
    static let format = "think-compress profile"
    static let version = 2

    /// A line of the journal but the first.
    enum Record: Codable, JournalRecord {
        /// The mean squared queries of every layer over a piece of the texts.
        case queries(piece: Int, squares: [[Double]])
        /// The variances of every layer's value channels in a prefix.
        case variances(prefix: Int, layers: [[Double]])
        /// What a probe gave in a prefix: the sensitivity of a channel of weight 1.
        case noise(probe: NoiseProbe, prefix: Int, sensitivity: Double)
    }

    private struct Heading: Codable {
        let format: String
        let version: Int
        let settings: ProfileSettings
    }

    /// What names a probe's measurement.
    private struct Place: Hashable {
        let probe: NoiseProbe
        let prefix: Int
    }

    public let settings: ProfileSettings
    private let file: JournalFile?
    private var queries: [Int: [[Double]]] = [:]
    private var variances: [Int: [[Double]]] = [:]
    private var probes: [Place: Double] = [:]

    /// A journal in memory.
    public init(settings: ProfileSettings) {
        self.settings = settings
        file = nil
    }

    /// Opens the journal at `path`, or begins one. A last line that was not written to its end is dropped.
    ///
    /// - Parameter access: who may use the file if it is begun.
    /// - Throws: `EvaluationError` if the file is no journal of a profile, or one of other settings; `FileError` if it
    ///   can't be read or written.
    public init(path: String, access: FileAccess = .standard, settings: ProfileSettings) throws {
        self.settings = settings
        guard let file = try JournalFile(path: path, access: access) else { throw Self.foreign(path) }
        self.file = file
        try file.read(
            heading: Heading(format: Self.format, version: Self.version, settings: settings),
            check: { try Self.check($0, path: path, settings: settings) },
            remember: remember
        )
    }

    /// Checks the first line.
    private static func check(_ line: Data, path: String, settings: ProfileSettings) throws(EvaluationError) {
        guard let heading = try? JSONDecoder().decode(Heading.self, from: line), heading.format == format,
            heading.version == version
        else { throw foreign(path) }
        if let difference = heading.settings.difference(from: settings) {
            throw EvaluationError(
                path: path,
                "holds measurements of another \(difference) than this profile's; \(remedy)"
            )
        }
    }

    private static let remedy = "remove it, or give the profile another name"

    private static func foreign(_ path: String) -> EvaluationError {
        EvaluationError(path: path, "is no journal of a profile's measurement; \(remedy)")
    }

    /// Keeps what was measured, which is on disk when this returns.
    func add(_ record: Record) throws {
        try file?.append(record)
        remember(record)
    }

    func squares(piece: Int) -> [[Double]]? { queries[piece] }
    func variances(prefix: Int) -> [[Double]]? { variances[prefix] }
    func sensitivity(of probe: NoiseProbe, prefix: Int) -> Double? { probes[Place(probe: probe, prefix: prefix)] }

    private func remember(_ record: Record) {
        switch record {
        case .queries(let piece, let squares): queries[piece] = squares
        case .variances(let prefix, let layers): variances[prefix] = layers
        case .noise(let probe, let prefix, let sensitivity):
            probes[Place(probe: probe, prefix: prefix)] = sensitivity
        }
    }
}

@available(*, unavailable)
extension ProfileJournal: Sendable {}

extension ProfileJournal.Record {
    /// Whether a measurement can have given it, but for the number of layers and channels.
    var isPossible: Bool {
        switch self {
        case .queries(_, let numbers), .variances(_, let numbers): numbers.joined().allSatisfy(Self.isPossible)
        case .noise(_, _, let sensitivity): Self.isPossible(sensitivity)
        }
    }

    /// Whether a number is not negative, and one that a profile can say, which has float32.
    private static func isPossible(_ number: Double) -> Bool { number >= 0 && Float(number).isFinite }
}

extension ProfileSettings {
    /// The first setting that others don't share, for a message; the model's name counts as little as a text's would.
    fileprivate func difference(from other: ProfileSettings) -> String? {
        let parts = [
            ("model", fingerprint == other.fingerprint && tokenizer == other.tokenizer),
            ("list of texts", texts == other.texts), ("effort", effort == other.effort),
            ("context", context == other.context), ("length of prefixes", prefix == other.prefix),
            ("seed", seed == other.seed),
        ]
        return parts.first { !$0.1 }?.0
    }
}
