/// A snapshot that can't be read: what is wrong and where, named as in Formats/snapshot.md, "Errors".
public struct SnapshotError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: String, Sendable, CaseIterable {
        case truncated
        case notASnapshot
        case unsupportedVersion
        case headerChecksumMismatch
        case invalidHeader
        case invalidSectionTable
        case checksumMismatch
        case invalidPadding
        case invalidMetadata
        case invalidRecipe
        case invalidGeometry
        case invalidPlan
        case invalidBases
        case invalidProfile
        case invalidQuality
        case invalidHeldTokens
        case invalidState
        case invalidPageTable
        case invalidFrame
        case invalidChain
        case invalidArchivePlan
        case invalidArchiveTable
        case invalidArchiveRecord
        /// The snapshot is an archive, and was asked for a cache that is used in place.
        case isArchive
    }

    public let code: Code
    /// The file's byte where the wrong field begins.
    public let offset: Int
    public let message: String
    /// What to do about it.
    public let remedy: String

    public var description: String { "\(message) (\(code.rawValue) at byte \(offset)); \(remedy)" }

    init(
        _ code: Code,
        at offset: Int,
        _ message: String,
        remedy: String = "the file is damaged: make the snapshot again or copy it again"
    ) {
        self.code = code
        self.offset = offset
        self.message = message
        self.remedy = remedy
    }
}
