import Foundation
import FuzzTargets
import TestSupport
import Testing

/// Inputs that ended in a trap, a hang or a strange error once: PARSER-ANYTHING.
@Suite("Inputs that failed once") struct FailCaseTests {
    static let folder = ProjectFiles.root.appending(path: "Tests/FuzzTests/FailCases").path
    private static let readme = "README.md"
    private static let content = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    static let names = content.filter { $0 != readme }.sorted()

    @Test("have a folder, even if there are none") func folderIsThere() {
        #expect(Self.content.contains(Self.readme))
    }

    @Test("are refused or used", arguments: FailCaseTests.names)
    func cases(name: String) async throws {
        let target = try #require(name.split(separator: "-").first.flatMap { ParserTarget(rawValue: String($0)) })
        try await Parser(target).parse(fileBytes("\(Self.folder)/\(name)"))
    }
}
