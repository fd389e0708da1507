import TestSupport
import Testing
import ThinkCompress

/// A cache's way through an archive, its file, and back.
@Suite struct ArchivingTests {
    /// Errors of what is restored, relative to the variance of what was archived; infinite where shapes differ.
    static func error(of restored: [KVCacheLayer], from cache: KVCache) -> Double {
        var (errors, total) = (0.0, 0.0)
        for (layer, original) in zip(restored, cache.layers) {
            for part in CachePart.allCases {
                let (new, old) = (layer[part].numbers, original[part].numbers)
                if new.count != old.count { return .infinity }
                let mean = old.reduce(0.0) { $0 + Double($1) } / Double(old.count)
                for (left, right) in zip(new, old) {
                    errors += Double(left - right) * Double(left - right)
                    total += (Double(right) - mean) * (Double(right) - mean)
                }
            }
        }
        return (errors / total).squareRoot()
    }

    static func restored(_ archive: CacheArchive, bases: ArchiveBases? = nil) async throws -> [KVCacheLayer] {
        let restoration = try ArchiveRestoration(archive, bases: bases)
        var layers: [KVCacheLayer] = []
        for group in restoration.layerGroups {
            layers += try await restoration.layers(group, as: archive.shape.elementType)
        }
        return layers
    }

    @Test(arguments: ["archive(step=0.02)", "archive(bits=4)", "archive(bits=2)", "archive(quality=balanced)"])
    func restoresWithoutProfile(recipe: String) async throws {
        var sample = TestCache()
        sample.tokens = 1300
        let cache = try sample.make()
        let archive = try await CacheArchive(archiving: cache, recipe: try Recipe(recipe))
        let error = Self.error(of: try await Self.restored(archive), from: cache)
        #expect(error < 0.5, "\(recipe): \(error), \(archive.bitsPerValue ?? 0) bits per value")
        if recipe == "archive(bits=4)" {
            let bits = try #require(archive.bitsPerValue)
            #expect(bits <= 4 && bits > 3.95, "\(bits)")
            #expect(error < 0.1)
        }
    }

    @Test func fileHasTheSameArchive() async throws {
        var sample = TestCache()
        sample.tokens = 1100
        let cache = try sample.make()
        let archive = try await CacheArchive(archiving: cache, recipe: try Recipe("archive(bits=3)"))
        let folder = try TemporaryFolder()
        let path = folder.file("a.tkv")
        try SnapshotWriter().write(archive, to: path)
        let reader = try SnapshotReader(path: path)
        #expect(reader.isArchive)
        try await reader.verify()
        let read = try await reader.archive()
        #expect(read.plan == archive.plan)
        let (left, right) = (try await Self.restored(read), try await Self.restored(archive))
        for (left, right) in zip(left, right) {
            #expect(left.keys.numbers == right.keys.numbers)
            #expect(left.values.numbers == right.values.numbers)
        }
    }
}
