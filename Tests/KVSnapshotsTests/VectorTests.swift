import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Reader and writer against the vectors of the format.
@Suite struct VectorTests {
    @Test("the manifest lists every file there is", arguments: ["valid", "invalid"])
    func manifestIsComplete(_ folder: String) throws {
        let files = try FileManager.default.contentsOfDirectory(atPath: ProjectFiles.vector(folder))
        let listed =
            folder == "valid" ? VectorManifest.shared.valid.map(\.name) : VectorManifest.shared.invalid.map(\.name)
        #expect(!listed.isEmpty)
        #expect(listed.map { "\($0).tkv" }.sorted() == files.filter { $0.hasSuffix(".tkv") }.sorted())
    }

    @Test("a valid file is sound and holds the expected cache", arguments: VectorManifest.shared.valid)
    func validFileHoldsExpectedCache(_ vector: VectorManifest.Valid) async throws {
        let reader = try SnapshotReader(path: ProjectFiles.vector("valid/\(vector.name).tkv"))
        try await reader.verify()
        #expect(reader.recipe?.description ?? "" == vector.recipe)
        let cache = try await reader.cache()
        let (expected, metadata) = try DumpTensor.all(
            path: ProjectFiles.vector("valid/\(vector.name).expected.safetensors")
        )
        let restored = try DumpTensor.all(cache)
        #expect(restored.keys.sorted() == expected.keys.sorted())
        for (name, tensor) in expected { #expect(restored[name] == tensor, "\(name)") }
        #expect(cache.metadata == metadata)
    }

    @Test("a file is written again to the byte", arguments: VectorManifest.shared.valid.filter(\.reproducible))
    func validFileIsWrittenAgain(_ vector: VectorManifest.Valid) async throws {
        let folder = try TemporaryFolder()
        let cache = try CacheDump.read(path: ProjectFiles.vector("valid/\(vector.name).safetensors"))
        let compressed = try await CompressedCache(
            compressing: cache,
            recipe: Recipe(vector.recipe),
            sinks: vector.sinks ?? 0
        )
        try await SnapshotWriter().write(compressed, to: folder.file("a.tkv"))
        try expectSameBytes(folder.file("a.tkv"), ProjectFiles.vector("valid/\(vector.name).tkv"))
    }

    /// Files that hold nothing that a reader ignores, without frames, which depend on the version of zstd.
    static let plainFiles = VectorManifest.shared.valid.filter {
        !["unknown-section", "zstd", "zstd-of-all"].contains($0.name)
    }

    @Test("a loaded file is written again to the byte, whatever its plan", arguments: plainFiles)
    func loadedFileIsWrittenAgain(_ vector: VectorManifest.Valid) async throws {
        let folder = try TemporaryFolder()
        let path = ProjectFiles.vector("valid/\(vector.name).tkv")
        let cache = try await SnapshotReader(path: path).cache()
        try await SnapshotWriter().write(cache, to: folder.file("a.tkv"))
        try expectSameBytes(folder.file("a.tkv"), path)
    }

    @Test("a loaded file grows unless its plan has ranges of an unknown rule", arguments: VectorManifest.shared.valid)
    func loadedFileGrows(_ vector: VectorManifest.Valid) async throws {
        var cache = try await SnapshotReader(path: ProjectFiles.vector("valid/\(vector.name).tkv")).cache()
        let (content, count) = (CacheContent(cache), cache.tokenCount)
        let type = cache.shape.elementType
        let rows = cache.layers.map { layer in
            func zeros(_ dimension: Int) -> KVTensor {
                let bytes = [UInt8](repeating: 0, count: layer.geometry.kvHeads * dimension * type.byteCount)
                return KVTensor(
                    bytes: SharedBytes(bytes),
                    elementType: type,
                    heads: layer.geometry.kvHeads,
                    tokens: layer.geometry.isEmpty ? 0 : 1,
                    headDimension: dimension
                )
            }
            return KVCacheLayer(
                keys: zeros(layer.geometry.keyDimension),
                values: zeros(layer.geometry.valueDimension),
                state: layer.state
            )
        }
        if vector.appendable ?? true {
            try cache.append(rows, tokens: [5])
            #expect(cache.tokenCount == count + 1)
        } else {
            let error = #expect(throws: CodecError.self) { try cache.append(rows, tokens: [5]) }
            #expect(error?.code == .unsupportedPlan)
            #expect(CacheContent(cache).difference(from: content) == nil)
        }
    }

    private func expectSameBytes(_ path: String, _ expectedPath: String) throws {
        let written = try Data(contentsOf: URL(filePath: path))
        let expected = try Data(contentsOf: URL(filePath: expectedPath))
        // The header's checksum differs wherever the table does, which says nothing about where.
        let places = (16..<min(written.count, expected.count)).filter { written[$0] != expected[$0] }
        let areEqual = written == expected
        #expect(areEqual, "the first of \(places.count) different bytes is \(places.first ?? -1)")
    }

    @Test("an invalid file is refused by the error's name and place", arguments: VectorManifest.shared.invalid)
    func invalidFileIsRefused(_ vector: VectorManifest.Invalid) async throws {
        let file = try SnapshotSurgery(path: ProjectFiles.vector("invalid/\(vector.name).tkv"))
        let error = await #expect(throws: SnapshotError.self) {
            try await SnapshotReader(file.shared).verify()
        }
        #expect(error?.code.rawValue == vector.error)
        #expect(error?.offset == vector.offset)
    }

    @Test("every error of the format has a vector")
    func everyErrorHasVector() {
        let codes = Set(VectorManifest.shared.invalid.map(\.error))
        // Of what is done with a sound file.
        let others: Set = [SnapshotError.Code.isArchive]
        #expect(codes == Set(Set(SnapshotError.Code.allCases).subtracting(others).map(\.rawValue)))
    }
}
