import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Archives that were made from the format alone, by `Tools/make-vectors`.
@Suite struct ArchiveVectorTests {
    private static func reader(_ vector: VectorManifest.Archive) throws -> SnapshotReader {
        try SnapshotReader(path: ProjectFiles.vector("archives/\(vector.name).tkv"))
    }

    private static func profile(
        _ vector: VectorManifest.Archive,
        metadata: [String: String],
        geometry: CacheGeometry
    ) throws -> [LayerProfile]? {
        guard let name = vector.profile else { return nil }
        let file = try SafetensorsFile(MappedFile.bytes(path: ProjectFiles.vector("profiles/\(name).safetensors")))
        return try ModelProfile.read(file, metadata: metadata, geometry: geometry)
    }

    private static func bases(_ vector: VectorManifest.Archive, of reader: SnapshotReader) throws -> ArchiveBases? {
        try profile(vector, metadata: reader.metadata, geometry: reader.geometry).flatMap { ArchiveBases($0) }
    }

    static let encoded = VectorManifest.shared.archives.filter { $0.recipe != nil }

    @Test("an archive is made to the byte", arguments: encoded)
    func archiveIsMade(_ vector: VectorManifest.Archive) async throws {
        var cache = try CacheDump.read(path: ProjectFiles.vector("archives/\(vector.name).safetensors"))
        if let profile = try Self.profile(vector, metadata: cache.metadata, geometry: cache.geometry) {
            cache = try cache.withProfile(profile)
        }
        let archive = try await CacheArchive(archiving: cache, recipe: Recipe(vector.recipe ?? ""))
        var written = SnapshotBytes()
        try SnapshotWriter().write(archive, into: &written)
        let expected = try fileBytes(ProjectFiles.vector("archives/\(vector.name).tkv"))
        let place = zip(written.bytes, expected).enumerated().dropFirst(16).first { $1.0 != $1.1 }?.offset
        let isEqual = written.bytes == expected
        #expect(isEqual, "\(written.bytes.count) and \(expected.count) bytes, others from \(place ?? -1) on")
    }

    @Test("the manifest lists every archive there is") func manifestIsComplete() throws {
        let files = try FileManager.default.contentsOfDirectory(atPath: ProjectFiles.vector("archives"))
        let listed = VectorManifest.shared.archives.map { "\($0.name).tkv" }
        #expect(!listed.isEmpty)
        #expect(listed.sorted() == files.filter { $0.hasSuffix(".tkv") }.sorted())
    }

    @Test("an archive is sound, and restored to the bit", arguments: VectorManifest.shared.archives)
    func archiveIsRestored(_ vector: VectorManifest.Archive) async throws {
        let reader = try Self.reader(vector)
        #expect(reader.isArchive)
        try await reader.verify()
        let archive = try await reader.archive()
        let restoration = try ArchiveRestoration(archive, bases: Self.bases(vector, of: reader))
        let (expected, metadata) = try DumpTensor.all(
            path: ProjectFiles.vector("archives/\(vector.name).expected.safetensors")
        )
        #expect(archive.metadata == metadata)
        #expect(reader.summary.blockBitsPerValue ?? 0 < 64)
        #expect(reader.summary.blockBitsPerValue == archive.bitsPerValue)
        var index = 0
        for group in restoration.layerGroups {
            for layer in try await restoration.layers(group, as: archive.shape.elementType) {
                for (part, tensor) in [("keys", layer.keys), ("values", layer.values)] {
                    let shape = [1, tensor.heads, tensor.tokens, tensor.headDimension]
                    let found = DumpTensor(
                        elementType: tensor.elementType.name,
                        shape: shape,
                        bytes: Data(tensor.bytes.array)
                    )
                    #expect(expected["layers.\(index).\(part)"] == found, "layer \(index), \(part)")
                }
                for state in layer.state {
                    #expect(expected["layers.\(index).state.\(state.name)"]?.bytes == Data(state.bytes.array))
                }
                index += 1
            }
        }
        #expect(index == archive.layers.count)
        for (name, numbers) in [("tokens", archive.tokens), ("positions", archive.positions)] {
            #expect(expected[name]?.bytes == numbers.map { Data($0.flatMap { littleEndianBytes($0) }) })
        }
    }

    @Test("the first tokens are restored as with all", arguments: VectorManifest.shared.archives)
    func prefixIsRestored(_ vector: VectorManifest.Archive) async throws {
        let reader = try Self.reader(vector)
        let archive = try await reader.archive()
        guard archive.wholeOnlyReason == nil else { return }
        let restoration = try ArchiveRestoration(archive, bases: Self.bases(vector, of: reader))
        for count in [1, 2, 33, archive.tokenCount / 2 + 1] where count < archive.tokenCount {
            for group in restoration.layerGroups {
                let all = try await restoration.layers(group, as: .float32)
                let some = try await restoration.layers(group, tokens: count, as: .float32)
                for (all, some) in zip(all, some) {
                    for part in CachePart.allCases where all[part].headDimension > 0 {
                        #expect(some[part].hasSameBits(as: all[part][tokens: 0..<count]), "\(count) tokens")
                    }
                }
            }
        }
    }

    @Test("a loaded archive is written again to the byte", arguments: VectorManifest.shared.archives)
    func archiveIsWrittenAgain(_ vector: VectorManifest.Archive) async throws {
        let folder = try TemporaryFolder()
        try SnapshotWriter().write(try await Self.reader(vector).archive(), to: folder.file("a.tkv"))
        let written = try Data(contentsOf: URL(filePath: folder.file("a.tkv")))
        let expected = try Data(contentsOf: URL(filePath: ProjectFiles.vector("archives/\(vector.name).tkv")))
        let isEqual = written == expected
        #expect(isEqual)
    }

    /// Those of one model's profiles.
    static let withProfiles = VectorManifest.shared.archives.filter { $0.profile != nil && $0.recipe == nil }

    @Test("an archive is restored by no other profile", arguments: withProfiles)
    func otherProfileIsRefused(_ vector: VectorManifest.Archive) async throws {
        let reader = try Self.reader(vector)
        let archive = try await reader.archive()
        #expect(throws: ArchiveError.self) { try ArchiveRestoration(archive, bases: nil) }
        let other = vector.profile == "heads" ? "layer" : "heads"
        let bases = try Self.bases(.init(name: vector.name, profile: other), of: reader)
        let error = #expect(throws: ArchiveError.self) { try ArchiveRestoration(archive, bases: bases) }
        #expect(error?.code == .otherProfile)
    }
}
