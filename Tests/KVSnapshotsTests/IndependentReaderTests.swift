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
        Case(recipe: "think(keys=0.4,values=0.2,restore=mean)+kivi(bits=2)", type: .float16, measured: true),
        Case(recipe: "think(keys=0.5,restore=mean)+kivi(bits=4)", type: .bfloat16),
        Case(recipe: "think(keys=0.3,restore=mean)", type: .float32),
        Case(recipe: "kivi(bits=2,residual=0)", type: .float16, tokens: 600, dimension: 16),
        Case(recipe: "kivi(bits=2)", type: .float16, level: 3, measured: true),
        Case(recipe: "think(keys=0.4)+kivi(bits=2)", type: .bfloat16, tokens: 600, dimension: 16, level: 3),
    ]

    @Test("it agrees to the bit", arguments: cases)
    func agrees(_ test: Case) async throws {
        var model = TestCache()
        model.tokens = test.tokens
        model.headDimension = test.dimension
        model.elementType = test.type
        let cache = try model.makeQuickly()
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe(test.recipe))
        let quality =
            test.measured ? try await CacheComparison(original: cache, compressed: compressed).measure() : nil
        try await expectAgreement(compressed, quality: quality, level: test.level)
    }

    static let mixedCases = [
        Case(recipe: "f16", type: .float16, tokens: 340, measured: true),
        Case(recipe: "kivi(bits=2,residual=0)", type: .bfloat16, tokens: 340),
        Case(recipe: "kivi(bits=4,group=64,residual=64)", type: .float32, tokens: 600, measured: true),
        Case(recipe: "think(keys=0.4,restore=mean)+kivi(bits=8,residual=32)", type: .float16, tokens: 340, level: 3),
    ]

    @Test("it agrees to the bit on layers of every kind", arguments: mixedCases, [0, 4])
    func agreesOnMixedLayers(_ test: Case, sinks: Int) async throws {
        var model = MixedCache()
        model.elementType = test.type
        model.tokens = test.tokens
        let cache = try model.make()
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe(test.recipe), sinks: sinks)
        let quality =
            test.measured ? try await CacheComparison(original: cache, compressed: compressed).measure() : nil
        try await expectAgreement(compressed, quality: quality, level: test.level)
    }

    @Test("it agrees on a cache without keys and values", arguments: [false, true])
    func agreesOnNoKeys(hasState: Bool) async throws {
        let state = hasState ? [LayerState(name: "ssm", bytes: SharedBytes([1, 2, 3]))] : []
        let cache = try KVCache(
            layers: [KVCacheLayer(elementType: .bfloat16), KVCacheLayer(elementType: .bfloat16, state: state)],
            tokenCount: 3,
            tokens: [7, 8, 9]
        )
        try await expectAgreement(CompressedCache(compressing: cache, recipe: Recipe("kivi(bits=2)")))
    }

    private func expectAgreement(
        _ compressed: CompressedCache,
        quality: CompressionQuality? = nil,
        level: Int? = nil
    ) async throws {
        let folder = try TemporaryFolder()
        let file = folder.file("a.tkv")
        try await SnapshotWriter(compressionLevel: level).write(compressed, quality: quality, to: file)
        let result = try await IndependentReader.run([file, "-o", folder.file("a.safetensors")])
        #expect(result.status == 0)
        #expect(result.errors == "")
        let (tensors, metadata) = try DumpTensor.all(path: folder.file("a.safetensors"))
        let expected = try DumpTensor.all(compressed)
        #expect(tensors.keys.sorted() == expected.keys.sorted())
        for (name, tensor) in expected { #expect(tensors[name] == tensor, "\(name)") }
        #expect(metadata == compressed.metadata)
    }

    @Test("it restores our archives to the bit", arguments: ["basis", "channels"])
    func agreesOnArchives(name: String) async throws {
        let folder = try TemporaryFolder()
        let (path, profile) = (
            ProjectFiles.fixture("archives/\(name).tkv"), ProjectFiles.fixture("archives/cache.profile")
        )
        let result = try await IndependentReader.run([
            path, "--profile", profile, "-o", folder.file("a.safetensors"),
        ])
        #expect(result.status == 0 && result.errors == "")
        let (tensors, metadata) = try DumpTensor.all(path: folder.file("a.safetensors"))
        let reader = try SnapshotReader(path: path)
        let archive = try await reader.archive()
        #expect(metadata == archive.metadata)
        let layers = try ModelProfile.read(
            SafetensorsFile(MappedFile.bytes(path: profile)),
            metadata: metadata,
            geometry: reader.geometry
        )
        let restoration = try ArchiveRestoration(archive, bases: ArchiveBases(layers))
        var index = 0
        for group in restoration.layerGroups {
            for layer in try await restoration.layers(group, as: .float16) {
                #expect(tensors["layers.\(index).keys"]?.bytes == Data(layer.keys.packedBytes))
                #expect(tensors["layers.\(index).values"]?.bytes == Data(layer.values.packedBytes))
                index += 1
            }
        }
        #expect(index == 2)
        if name == "channels" { return }
        let refused = try await IndependentReader.run([path, "-o", folder.file("b.safetensors")])
        #expect(refused.status == 1 && refused.errors.contains("needs the profile"), "\(refused.errors)")
    }

    @Test("it refuses a damaged file as we do")
    func refusesDamage() async throws {
        let folder = try TemporaryFolder()
        var model = TestCache()
        model.headDimension = 16
        let compressed = try await CompressedCache(compressing: model.makeQuickly(), recipe: Recipe("kivi(bits=2)"))
        try await SnapshotWriter().write(compressed, to: folder.file("a.tkv"))
        var file = try SnapshotSurgery(path: folder.file("a.tkv"))
        let pages = try #require(file.section(SnapshotSurgery.Kind.pages)).range
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
