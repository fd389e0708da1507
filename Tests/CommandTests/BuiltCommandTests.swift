import Foundation
import TestSupport
import Testing
import ThinkCompress

/// The built command as a user runs it. One after the other: each run uses all processors.
@Suite(.serialized) enum BuiltCommandTests {
    /// The cache of a real prompt: 4 layers, 8 query heads, 2 KV heads of dimension 64, 2048 tokens, float16.
    static let dump = ProjectFiles.fixture("postgres-2048.safetensors")

    /// Writes a small dump and returns its path.
    static func writeSmallDump(
        in folder: TemporaryFolder,
        name: String = "small.safetensors",
        tokens: Int = 50,
        change: (inout SafetensorsBuilder) -> Void = { _ in }
    ) throws -> String {
        var model = TestCache()
        model.headDimension = 16
        model.tokens = tokens
        model.window = min(tokens, 8)
        var builder = SafetensorsBuilder(try model.makeQuickly())
        change(&builder)
        try builder.write(to: folder.file(name))
        return folder.file(name)
    }

    /// Makes a snapshot that must succeed and returns its path.
    static func makeSnapshot(
        of dump: String,
        codec: String = "kivi(bits=2,residual=0)",
        in folder: TemporaryFolder,
        name: String = "a.tkv"
    ) async throws -> String {
        let path = folder.file(name)
        let result = try await BuiltCommand.run(
            "snapshot",
            dump,
            "-o",
            path,
            "--codec",
            codec,
            "--no-quality",
            "--force"
        )
        try #require(result.status == 0, "\(result.errors)")
        return path
    }

    /// Checks that a run failed because of a bad input: status 1, nothing on standard output, one line on standard
    /// error that begins with the program's name and names what it is about.
    static func expectBadInput(
        _ result: Subprocess.Result,
        naming words: String...,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(result.status == 1, sourceLocation: sourceLocation)
        #expect(result.output == "", sourceLocation: sourceLocation)
        #expect(result.errors.hasPrefix("think-compress: "), "\(result.errors)", sourceLocation: sourceLocation)
        #expect(result.errors.hasSuffix("\n"), sourceLocation: sourceLocation)
        #expect(result.errors.split(separator: "\n").count == 1, "\(result.errors)", sourceLocation: sourceLocation)
        for word in words {
            #expect(
                result.errors.contains(word),
                "'\(word)' is not in: \(result.errors)",
                sourceLocation: sourceLocation
            )
        }
    }

    /// What a command printed as JSON.
    static func json(_ result: Subprocess.Result) throws -> [String: Any] {
        try #require(JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any])
    }

    static func data(_ path: String) throws -> Data { try Data(contentsOf: URL(filePath: path)) }
}
