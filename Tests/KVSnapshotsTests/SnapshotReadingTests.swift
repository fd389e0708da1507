import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Snapshots that are read and not mapped: what is handed on is what was checked.
@Suite struct SnapshotReadingTests {
    private let folder: TemporaryFolder
    private var path: String { folder.file("a.tkv") }

    init() throws {
        folder = try TemporaryFolder()
    }

    /// Writes a snapshot whose numbers follow from the seed and whose length doesn't.
    private func write(_ test: SnapshotRoundTripTests.Case, seed: UInt64 = 1) async throws -> CompressedCache {
        var model = TestCache()
        model.headDimension = 20
        model.tokens = test.tokens
        model.elementType = test.type
        model.window = min(32, test.tokens)
        model.seed = seed
        let cache = try model.makeQuickly().withPositions()
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe(test.recipe))
        let writer = SnapshotWriter(compressionLevel: test.level, replacesExisting: true)
        let size = try await writer.write(compressed, to: path)
        // The size is known without a file, too.
        #expect(try await writer.size(of: compressed) == size)
        #expect(size.fileBytes == (try Data(contentsOf: URL(filePath: path)).count))
        #expect(size.payloadBytes == (try SnapshotReader(path: path).summary.size.payloadBytes))
        return compressed
    }

    private func numbers(_ layer: KVCacheLayer) -> [Float] { layer.keys.numbers + layer.values.numbers }

    /// Overwrites the file in place with other bytes of the same length.
    private func overwrite(with bytes: Data) throws {
        let handle = try FileHandle(forUpdating: URL(filePath: path))
        try handle.write(contentsOf: bytes)
        try handle.close()
    }

    @Test("pieces and layers are what the cache is", arguments: SnapshotRoundTripTests.cases)
    func piecesAreTheCache(_ test: SnapshotRoundTripTests.Case) async throws {
        try await expectPieces(of: write(test))
    }

    @Test("pieces of layers of every kind are what the cache is", arguments: [nil, 3], [0, 4, 64])
    func piecesOfMixedLayers(level: Int?, sinks: Int) async throws {
        var model = MixedCache()
        // Layers list eight first tokens, and one that can't have the sinks has none.
        let cache = try await CompressedCache(
            compressing: model.make(),
            recipe: Recipe("kivi(bits=4,residual=32)"),
            sinks: sinks
        )
        try await SnapshotWriter(compressionLevel: level).write(cache, to: path)
        try await expectPieces(of: cache)
    }

    private func expectPieces(of cache: CompressedCache) async throws {
        let reader = try SnapshotReader(path: path, access: .reading)
        try await reader.verify()
        #expect(CacheContent(try await reader.cache()).difference(from: CacheContent(cache)) == nil)
        let layers = try reader.layers()
        for expected in cache.layers {
            let layer = try await layers.layer(expected.index)
            #expect(CacheContent(layer).difference(from: CacheContent(expected)) == nil)
            #expect(layers.held(layer: expected.index) == expected.held)
            #expect(layers.state(layer: expected.index) == expected.state)
        }
        var ends = [Int](repeating: 0, count: cache.layers.count)
        try await layers.forEachPiece {
            ($0, try $0.layer.decompress(rows: 0..<$0.layer.rowCount, as: .float32))
        } take: { piece, restored in
            let index = piece.layer.index
            let expected = try cache.layers[index].decompress(rows: piece.rows, as: .float32)
            #expect(piece.firstRow == ends[index])
            #expect((1...256).contains(piece.layer.rowCount) || piece.layer.extent.blocks.isEmpty)
            #expect(restored.keys.hasSameBits(as: expected.keys))
            #expect(restored.values.hasSameBits(as: expected.values))
            ends[index] = piece.rows.upperBound
        }
        #expect(ends == cache.layers.map(\.rowCount))
        #expect(try reader.tokens() == cache.tokens)
        #expect(try reader.positions() == cache.positions)
    }

    @Test("a file that is overwritten between check and use gives what was checked, or an error", arguments: [nil, 3])
    func overwritten(level: Int?) async throws {
        let test = SnapshotRoundTripTests.Case(recipe: "kivi(bits=2,residual=0)", tokens: 1024, level: level)
        _ = try await write(test, seed: 2)
        let other = try Data(contentsOf: URL(filePath: path))
        let cache = try await write(test, seed: 1)
        // Where lengths differ, the change is found by them already.
        let bytes = other.prefix(try Data(contentsOf: URL(filePath: path)).count)
        let reader = try SnapshotReader(path: path, access: .reading)
        try await reader.verify()
        let first = try await reader.layers().layer(0)
        let layers = try reader.layers()
        try overwrite(with: bytes)
        let tokens = 0..<cache.tokenCount
        try #expect(
            numbers(first.decompress(rows: tokens, as: .float32))
                == numbers(cache.layers[0].decompress(rows: tokens, as: .float32))
        )
        let error = await #expect(throws: SnapshotError.self) { try await layers.layer(1) }
        #expect(error?.code == .checksumMismatch)
        await #expect(throws: SnapshotError.self) {
            try await layers.forEachPiece {
                $0.layer.tokenCount
            } take: { _ in
            }
        }
        await #expect(throws: SnapshotError.self) { try await reader.verify() }
        await #expect(throws: SnapshotError.self) { try await reader.cache(verifyingPages: false) }
    }

    @Test("a file that is cut short or grows while it is read is an error that names it", arguments: [-1, 1])
    func changedLength(by change: Int) async throws {
        _ = try await write(SnapshotRoundTripTests.Case(recipe: "f16"))
        let reader = try SnapshotReader(path: path, access: .reading)
        let layers = try reader.layers()
        let handle = try FileHandle(forUpdating: URL(filePath: path))
        try handle.truncate(atOffset: UInt64(reader.fileByteCount + change))
        try handle.close()
        let error = await #expect(throws: FileError.self) { try await layers.layer(0) }
        #expect(error?.code == .changed)
        #expect(error?.path == path)
        await #expect(throws: FileError.self) { try await reader.verify() }
    }

    @Test(
        "a file that is replaced by renaming is read to its end",
        arguments: [SnapshotReader.Access.mapped, .reading]
    )
    func replaced(access: SnapshotReader.Access) async throws {
        let test = SnapshotRoundTripTests.Case(recipe: "kivi(bits=2)")
        let cache = try await write(test)
        let reader = try SnapshotReader(path: path, access: access)
        _ = try await write(test, seed: 9)
        try await reader.verify()
        #expect(CacheContent(try await reader.cache()).difference(from: CacheContent(cache)) == nil)
    }

    @Test("a snapshot is its owner's alone unless something else is asked for")
    func permissions() async throws {
        func mode() throws -> Int? {
            try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
        }
        let cache = try await write(SnapshotRoundTripTests.Case(recipe: "f16", tokens: 20))
        #expect(try mode() == 0o600)
        let access = FileAccess(mode: FileMode(octal: "644"))
        try await SnapshotWriter(replacesExisting: true, access: access).write(cache, to: path)
        #expect(try mode() == 0o644)
    }
}
