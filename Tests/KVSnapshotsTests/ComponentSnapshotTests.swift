import TestSupport
import Testing
import ThinkCompress

/// Snapshots of caches whose components are coded: Formats/calibrated.md.
@Suite struct ComponentSnapshotTests {
    private static let bases = 20

    private static func compressed() async throws -> CompressedCache {
        var shape = TestCache()
        (shape.headDimension, shape.tokens) = (32, 500)
        return try await CompressedCache(
            compressing: shape.makeQuickly().withRandomBases(),
            recipe: Recipe("calibrated(bits=1.5)")
        )
    }

    private static func file(_ cache: CompressedCache, level: Int? = nil) async throws -> SnapshotSurgery {
        let folder = try TemporaryFolder()
        try await SnapshotWriter(compressionLevel: level).write(cache, to: folder.file("a.tkv"))
        return try SnapshotSurgery(path: folder.file("a.tkv"))
    }

    @Test("a cache comes back with its plans and bytes", arguments: [nil, 3])
    func comesBack(level: Int?) async throws {
        let cache = try await Self.compressed()
        let file = try await Self.file(cache, level: level)
        #expect(file.integer(UInt32.self, at: 8) == 3)
        #expect(file.sections.last?.kind == Self.bases)
        let reader = try SnapshotReader(file.shared)
        try await reader.verify()
        #expect(reader.plans == cache.layers.map(\.plan))
        let loaded = try await reader.cache(verifyingPages: true)
        #expect(CacheContent(loaded).difference(from: CacheContent(cache)) == nil)
    }

    @Test("what a loaded cache packs is what the first one packs")
    func goesOn() async throws {
        var cache = try await Self.compressed()
        var loaded = try await SnapshotReader(Self.file(cache).shared).cache()
        var shape = TestCache()
        (shape.headDimension, shape.tokens, shape.seed) = (32, 200, 9)
        let more = try shape.makeQuickly().layers.map { KVCacheLayer(keys: $0.keys, values: $0.values) }
        try cache.append(more)
        try loaded.append(more)
        #expect(CacheContent(loaded).difference(from: CacheContent(cache)) == nil)
    }

    @Test("other caches stay in version 2")
    func othersStay() async throws {
        var shape = TestCache()
        shape.tokens = 100
        let cache = try await CompressedCache(compressing: shape.makeQuickly(), recipe: Recipe("kivi(bits=2)"))
        #expect(try await Self.file(cache).integer(UInt32.self, at: 8) == 2)
    }

    @Test("version 2 has no bases")
    func versionTwo() async throws {
        var file = try await Self.file(Self.compressed())
        file.put(UInt32(2), at: 8)
        file.mendHeaderChecksum()
        let error = #expect(throws: SnapshotError.self) { _ = try SnapshotReader(file.shared) }
        #expect(error?.code == .invalidSectionTable)
        #expect(error?.offset == file.sections.last?.entry)
    }

    struct Fault: Sendable, CustomTestStringConvertible {
        let name: String
        /// Where in the section the bytes are, and where the error is.
        let offset: Int
        let bytes: [UInt8]
        var place: Int?
        var testDescription: String { name }
    }

    @Test(
        "each field of the first plan is checked",
        arguments: [
            Fault(name: "no runs", offset: 0, bytes: [0]),
            Fault(name: "five runs", offset: 0, bytes: [5]),
            Fault(name: "padding", offset: 2, bytes: [1]),
            Fault(name: "a width of 6", offset: 4, bytes: [6]),
            Fault(name: "full precision", offset: 4, bytes: [0, 0, 0, 0]),
            Fault(name: "a rotation", offset: 7, bytes: [1]),
            Fault(name: "no components", offset: 8, bytes: [0, 0, 0, 0]),
            Fault(name: "too many components", offset: 8, bytes: [33, 0, 0, 0]),
        ]
    )
    func damage(_ fault: Fault) async throws {
        var file = try await Self.file(Self.compressed())
        let section = try #require(file.sections.last)
        for (index, byte) in fault.bytes.enumerated() {
            file.bytes[section.range.lowerBound + fault.offset + index] = byte
        }
        file.mendChecksums()
        let error = #expect(throws: SnapshotError.self) { _ = try SnapshotReader(file.shared) }
        #expect(error?.code == .invalidBases)
        #expect(error?.offset == section.range.lowerBound + fault.offset)
    }

    @Test("numbers that are not finite, or not positive, are refused where they are")
    func damagedNumbers() async throws {
        let cache = try await Self.compressed()
        let file = try await Self.file(cache)
        let section = try #require(file.sections.last)
        let keys = try #require(cache.layers[0].plan.heads[0].components).keys
        let numbers = section.range.lowerBound + 4 + 8 * keys.runs.count
        for (index, value) in [(3, Float.nan), (32 + 5, 0), (32 + 31, -1), (64, .infinity)] {
            var damaged = file
            damaged.put(value.bitPattern, at: numbers + 4 * index)
            damaged.mendChecksums()
            let error = #expect(throws: SnapshotError.self) { _ = try SnapshotReader(damaged.shared) }
            #expect(error?.code == .invalidBases && error?.offset == numbers + 4 * index)
        }
    }

    @Test("a head that says BASES and isn't there, and one that is there and isn't said")
    func unsaidHeads() async throws {
        var file = try await Self.file(Self.compressed())
        let plan = try #require(file.sections.first { $0.kind == SnapshotSurgery.Kind.plan })
        file.bytes[plan.range.lowerBound + 5] = 1
        file.mendChecksums()
        var error = #expect(throws: SnapshotError.self) { _ = try SnapshotReader(file.shared) }
        #expect(error?.code == .invalidPlan && error?.offset == plan.range.lowerBound + 5)
        var shape = TestCache()
        shape.tokens = 200
        let other = try await CompressedCache(compressing: shape.makeQuickly(), recipe: Recipe("kivi(bits=2)"))
        var ordinary = try await Self.file(other)
        let start = try #require(ordinary.sections.first { $0.kind == SnapshotSurgery.Kind.plan }).range.lowerBound
        ordinary.bytes[start] = 0
        ordinary.mendChecksums()
        error = #expect(throws: SnapshotError.self) { _ = try SnapshotReader(ordinary.shared) }
        #expect(error?.code == .invalidPlan && error?.offset == start)
    }
}
