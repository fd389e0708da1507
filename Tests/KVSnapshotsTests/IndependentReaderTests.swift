import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Our files as `Tools/read-snapshot` reads them, which was written in another language from the specification alone.
@Suite(.enabled("python3 is needed to run Tools/read-snapshot") { await IndependentReader.canRun })
struct IndependentReaderTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let recipe: String
        let type: ElementType
        var tokens = 300
        var dimension = 32
        var level: Int?
        var measured = false
        var testDescription: String {
            "\(recipe) of \(tokens) tokens, dimension \(dimension), \(type.name)"
                + (level.map { ", zstd \($0)" } ?? "") + (measured ? ", with quality" : "")
        }
    }

    static let cases = [
        Case(recipe: "f16", type: .float16, measured: true),
        Case(recipe: "bf16", type: .bfloat16),
        Case(recipe: "f32", type: .float32),
        Case(recipe: "kivi(bits=2)", type: .float16, measured: true),
        Case(recipe: "kivi(bits=4,group=64,residual=0)", type: .bfloat16),
        Case(recipe: "kivi(bits=8,group=128)", type: .float32),
        Case(recipe: "kivi(keys=4,values=2)", type: .float16, dimension: 40),
        Case(recipe: "think(keys=0.4)+kivi(bits=2)", type: .float16, measured: true),
        Case(recipe: "think(keys=0.5,restore=mean)+kivi(bits=4)", type: .bfloat16),
        Case(recipe: "think(keys=0.3,restore=mean)", type: .float32),
        Case(recipe: "kivi(bits=2,residual=0)", type: .float16, tokens: 600, dimension: 16),
        Case(recipe: "kivi(bits=2)", type: .float16, level: 3, measured: true),
        Case(recipe: "think(keys=0.4)+kivi(bits=2)", type: .bfloat16, tokens: 600, dimension: 16, level: 3),
    ]

    @Test("it agrees to the bit", arguments: cases)
    func agrees(_ test: Case) async throws {
        let folder = try TemporaryFolder()
        var model = TestCache()
        model.tokens = test.tokens
        model.headDimension = test.dimension
        model.elementType = test.type
        let cache = try model.makeQuickly()
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe(test.recipe))
        let quality =
            test.measured ? try await CacheComparison(original: cache, compressed: compressed).measure() : nil
        let file = folder.file("a.tkv")
        try await SnapshotWriter(compressionLevel: test.level).write(compressed, quality: quality, to: file)

        let result = try await IndependentReader.run([file, "-o", folder.file("a.safetensors")])
        #expect(result.status == 0)
        #expect(result.errors == "")
        let (tensors, metadata) = try DumpTensor.all(path: folder.file("a.safetensors"))
        let expected = try DumpTensor.all(compressed)
        #expect(tensors.keys.sorted() == expected.keys.sorted())
        for (name, tensor) in expected { #expect(tensors[name] == tensor, "\(name)") }
        #expect(metadata == compressed.metadata)
    }

    @Test("it refuses a damaged file as we do")
    func refusesDamage() async throws {
        let folder = try TemporaryFolder()
        var model = TestCache()
        model.headDimension = 16
        let compressed = try await CompressedCache(compressing: model.makeQuickly(), recipe: Recipe("kivi(bits=2)"))
        try await SnapshotWriter().write(compressed, to: folder.file("a.tkv"))
        var file = try SnapshotSurgery(path: folder.file("a.tkv"))
        let pages = try #require(file.section(6)).range
        file.bytes[pages.lowerBound + 100] ^= 1
        try Data(file.bytes).write(to: URL(filePath: folder.file("a.tkv")))

        let ours = await #expect(throws: SnapshotError.self) {
            try await SnapshotReader(file.shared).verify()
        }
        #expect(ours?.code == .checksumMismatch)
        #expect(ours?.offset == pages.lowerBound)
        let result = try await IndependentReader.run([
            folder.file("a.tkv"), "-o", folder.file("a.safetensors"), "--json-error",
        ])
        #expect(result.status == 1)
        struct Fault: Decodable, Equatable {
            let error: String
            let offset: Int
        }
        let theirs = try JSONDecoder().decode(Fault.self, from: Data(result.output.utf8))
        #expect(theirs == Fault(error: "checksumMismatch", offset: pages.lowerBound))
        #expect(folder.content == ["a.tkv"])
    }
}

/// `Tools/read-snapshot`, a Python program without other needs than zstd's library.
enum IndependentReader {
    static func run(_ arguments: [String]) async throws -> Subprocess.Result {
        let tool = ProjectFiles.root.appending(path: "Tools/read-snapshot").path
        return try await Subprocess.run("/usr/bin/env", ["python3", tool] + arguments)
    }

    static var canRun: Bool {
        get async {
            let result = try? await Subprocess.run("/usr/bin/env", ["python3", "-c", "import ctypes, mmap"])
            return result?.status == 0
        }
    }
}
