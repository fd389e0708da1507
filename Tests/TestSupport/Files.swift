public import Foundation

/// Files of this checkout that tests read.
public enum ProjectFiles {
    /// The top of the checkout.
    public static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    public static func fixture(_ name: String) -> String { root.appending(path: "Tests/Fixtures/\(name)").path }

    public static func vector(_ name: String) -> String { root.appending(path: "Formats/Vectors/\(name)").path }
}

/// A folder that is removed with its content when nobody needs it any more.
public final class TemporaryFolder: Sendable {
    public let path: String

    public init() throws {
        path = FileManager.default.temporaryDirectory.appending(path: "think-compress-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    public func file(_ name: String) -> String { "\(path)/\(name)" }

    /// Names of the files in it, hidden ones too.
    public var content: [String] { (try? FileManager.default.contentsOfDirectory(atPath: path).sorted()) ?? [] }
}
