import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Small or large files whose JSON would cost many times their size if it were taken apart: what the command needs to
/// refuse them.
@Suite struct HostileFileTests {
    /// What the command needs without any file.
    private static func idleMemory() async throws -> Int {
        try await PeakMemory.run(BuiltCommand.found(), ["--version"]).peak
    }

    /// The memory beyond an idle command's for a number of bytes that it reads.
    private static func check(
        _ run: (result: Subprocess.Result, peak: Int),
        fileBytes: Int,
        message: String
    ) async throws {
        let result = run.result
        #expect(result.status == 1)
        #expect(result.errors.contains(message), "\(result.errors.prefix(500))")
        let memory = try await run.peak - idleMemory()
        #expect(memory > 0)
        #expect(memory <= 4 * fileBytes, "\(memory) bytes for a file of \(fileBytes)")
    }

    private static func snapshot(header: String, data: [UInt8] = []) async throws -> (
        run: (result: Subprocess.Result, peak: Int), headerBytes: Int
    ) {
        let folder = try TemporaryFolder()
        let path = folder.file("dump.safetensors")
        let bytes = SafetensorsBuilder.file(header: header, data: data)
        try Data(bytes).write(to: URL(filePath: path))
        let run = try await PeakMemory.run(
            BuiltCommand.found(),
            ["snapshot", path, "--codec", "f16", "-o", folder.file("a.tkv")]
        )
        #expect(folder.content == ["dump.safetensors"])
        return (run, header.utf8.count)
    }

    @Test("a safetensors header of zeros costs less than four times its length")
    func headerOfZeros() async throws {
        let zeros = String(repeating: "0,", count: 1_500_000)
        let (run, count) = try await Self.snapshot(
            header: #"{"a":{"dtype":"U8","shape":[\#(zeros)0],"data_offsets":[0,0]}}"#
        )
        try await Self.check(run, fileBytes: count, message: "a.shape: has more than 64 dimensions")
    }

    @Test("a safetensors header of very many tensors costs less than four times its length")
    func headerOfManyTensors() async throws {
        let count = 30_000
        let entries = (0..<count).map { #""\#($0)":{"dtype":"U8","shape":[1],"data_offsets":[\#($0),\#($0 + 1)]}"# }
        let (run, bytes) = try await Self.snapshot(
            header: "{" + entries.joined(separator: ",") + "}",
            data: [UInt8](repeating: 0, count: count)
        )
        try await Self.check(run, fileBytes: bytes, message: "has no tensor 'layers.0.keys'")
    }

    @Test(
        "a tokenizer or configuration of zeros costs less than four times its length",
        arguments: ["tokenizer.json", "config.json", "generation_config.json"]
    )
    func filesOfZeros(name: String) async throws {
        let folder = try TemporaryFolder()
        let source = ProjectFiles.fixture("models/llama-3")
        for file in try FileManager.default.contentsOfDirectory(atPath: source) {
            try FileManager.default.copyItem(atPath: "\(source)/\(file)", toPath: folder.file(file))
        }
        let text = "[" + String(repeating: "0,", count: 1_500_000) + "0]"
        try Data(text.utf8).write(to: URL(filePath: folder.file(name)))
        let run = try await PeakMemory.run(
            BuiltCommand.found(),
            ["generate", "--model", folder.path, "--prompt", "a"]
        )
        try await Self.check(run, fileBytes: text.utf8.count, message: "\(name): must be an object")
    }
}
