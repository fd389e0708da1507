import Foundation
import FuzzTargets
import TestSupport
import Testing

/// Inputs that ended in a trap, a hang or a strange error once: PARSER-ANYTHING.
@Suite("Inputs that failed once") struct FailCaseTests {
    static let folder = ProjectFiles.root.appending(path: "Tests/FuzzTests/FailCases").path
    static let names = ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).filter {
        $0 != "README.md"
    }
    .sorted()

    @Test("are refused or used", arguments: FailCaseTests.names)
    func cases(name: String) async throws {
        let target = try #require(name.split(separator: "-").first.flatMap { ParserTarget(rawValue: String($0)) })
        try await Parser(target).parse(fileBytes("\(Self.folder)/\(name)"))
    }
}
