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
        case invalidProfile
        case invalidQuality
        case invalidHeldTokens
        case invalidState
        case invalidPageTable
        case invalidFrame
        case invalidChain
    }

    public let code: Code
    /// The file's byte where the wrong field begins.
    public let offset: Int
    public let message: String

    public var description: String { "\(message) (\(code.rawValue) at byte \(offset)); \(remedy)" }

    init(_ code: Code, at offset: Int, _ message: String) {
        self.code = code
        self.offset = offset
        self.message = message
    }

    private var remedy: String {
        switch code {
        case .notASnapshot: "pass a file that think-compress snapshot wrote"
        case .unsupportedVersion: "read it with a newer think-compress"
        default: "the file is damaged: make the snapshot again or copy it again"
        }
    }
}
