import Foundation
import TestSupport
import Testing
import ThinkCompress

@testable import ArchiveCoding

/// A cache's way through an archive, its file, and back.
@Suite struct ArchivingTests {
    /// A cache of two layers of two KV heads, of few numbers.
    static func cache(tokens: Int) throws -> KVCache {
        var sample = TestCache()
        sample.tokens = tokens
        sample.headDimension = 16
        return try sample.make()
    }

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

    @Test func errorsFallWithBits() async throws {
        let cache = try Self.cache(tokens: 420)
        var errors: [Double] = []
        for bits in ["2", "4", "6", "9"] {
            let archive = try await CacheArchive(archiving: cache, recipe: Recipe("archive(bits=\(bits),recent=32)"))
            errors.append(Self.error(of: try await Self.restored(archive), from: cache))
        }
        // Weights are those of queries, not of these errors; still two bits make them a fourth, or nearly.
        for (former, next) in zip(errors, errors.dropFirst()) { #expect(next < former * 0.45, "\(errors)") }
        #expect(errors[0] < 1 && errors[3] < 0.01, "\(errors)")
    }

    @Test func stepsOfQualitiesAreTheirs() async throws {
        let cache = try Self.cache(tokens: 300)
        for (recipe, step) in [
            ("archive(step=0.3)", 0.3), ("archive(quality=small)", 1.5), ("archive", 0.75),
            ("archive(quality=balanced)", 0.75), ("archive(quality=faithful)", 0.3),
        ] as [(String, Float)] {
            let archive = try await CacheArchive(archiving: cache, recipe: Recipe(recipe))
            #expect(archive.plan.step == step)
            #expect(archive.plan.units.count == 8 && archive.plan.basisDigest == nil)
        }
    }

    @Test(arguments: [1.5, 3, 6]) func bitsAreMet(bits: Double) async throws {
        let cache = try Self.cache(tokens: 700)
        let archive = try await CacheArchive(archiving: cache, recipe: Recipe("archive(bits=\(bits),recent=32)"))
        let found = try #require(archive.bitsPerValue)
        #expect(found <= bits && found > bits * 0.99, "\(found)")
    }

    @Test(arguments: [2.5, 4]) func theWholeFileMeetsARatio(ratio: Double) async throws {
        let cache = try Self.cache(tokens: 1100)
        let archive = try await CacheArchive(archiving: cache, recipe: Recipe("archive(ratio=\(ratio),recent=32)"))
        var bytes = SnapshotBytes()
        let size = try SnapshotWriter().write(archive, into: &bytes)
        #expect(size.fileBytes == bytes.bytes.count)
        // Of a small cache what is not in chunks, of which more is expected than there is, has a share that counts.
        let found = Double(2 * cache.valueCount) / Double(bytes.bytes.count)
        #expect(found >= ratio && found < ratio * 1.03, "\(found)")
    }

    /// Units have no records in chunks before their layers' windows, and no bytes there that would count.
    @Test func bitsAreMetWhereLayersHoldTheLastTokens() async throws {
        var generator = SplitMix64(seed: 5)
        let layer = KVCacheLayer.random(
            try LayerGeometry(queryHeads: 0, kvHeads: 1, keyDimension: 16, valueDimension: 16),
            elementType: .float16,
            rows: 400,
            held: .last,
            using: &generator
        )
        let cache = try KVCache(layers: [layer], tokenCount: 12_000)
        let archive = try await CacheArchive(archiving: cache, recipe: Recipe("archive(bits=6,recent=32)"))
        let found = try #require(archive.bitsPerValue)
        #expect(found <= 6 && found > 5.9, "\(found)")
    }

    @Test func aRatioThatCannotBeIsAnError() async throws {
        let cache = try Self.cache(tokens: 300)
        for recipe in ["archive(ratio=200)", "archive(bits=0.05)"] {
            let error = await #expect(throws: CodecError.self) {
                _ = try await CacheArchive(archiving: cache, recipe: Recipe(recipe))
            }
            #expect(error?.code == .unsupportedPlan)
        }
    }

    @Test func aStepThatIsTooSmallIsAnError() async throws {
        let error = await #expect(throws: ArchiveError.self) {
            _ = try await CacheArchive(archiving: Self.cache(tokens: 300), recipe: Recipe("archive(step=0.00001)"))
        }
        #expect(error?.code == .stepTooSmall)
    }

    @Test func stepsAreExactPowers() {
        #expect(StepSearch.step(0) == 1 && StepSearch.step(256) == 2 && StepSearch.step(-512) == 0.25)
        #expect(StepSearch.step(128) == Float(2.0.squareRoot()))
        #expect((-300..<300).allSatisfy { StepSearch.step($0) < StepSearch.step($0 + 1) })
    }

    @Test func numbersBeyondFloat16AreRefused() async throws {
        for number in [1e6, .nan, -.infinity] as [Float] {
            var numbers = [Float](repeating: 0.5, count: 40 * 4)
            numbers[77] = number
            let tensor = KVTensor(numbers, elementType: .float32, heads: 1, headDimension: 4)
            let cache = try KVCache(layers: [KVCacheLayer(keys: tensor, values: tensor)], tokenCount: 40)
            let error = await #expect(throws: CodecError.self) {
                _ = try await CacheArchive(archiving: cache, recipe: Recipe("archive(step=0.1,recent=0)"))
            }
            #expect(error?.description.contains("(layer 0, head 0, token 19, channel 1)") == true)
        }
    }

    @Test func cachesOfEveryKindAreRestored() async throws {
        var generator = SplitMix64(seed: 9)
        func layer(_ rows: Int, _ dimensions: (Int, Int), held: HeldTokens, heads: Int = 2) throws -> KVCacheLayer {
            KVCacheLayer.random(
                try LayerGeometry(
                    queryHeads: 0,
                    kvHeads: heads,
                    keyDimension: dimensions.0,
                    valueDimension: dimensions.1
                ),
                elementType: .float16,
                rows: rows,
                held: held,
                using: &generator
            )
        }
        let state = LayerState(name: "s", bytes: SharedBytes([1, 2, 3]))
        let none = KVCacheLayer(elementType: .float16, state: [state])
        let last = try layer(20, (6, 4), held: .last)
        let caches = [
            try KVCache(
                layers: [layer(300, (5, 0), held: .all), none, layer(90, (6, 4), held: .last)],
                tokenCount: 300
            ),
            // No layer has coded places, and there are places before the windows.
            try KVCache(layers: [last], tokenCount: 300),
            try KVCache(layers: [none], tokenCount: 3),
            try KVCache(layers: [layer(1, (4, 4), held: .all)], tokenCount: 1),
            // Nothing but sinks.
            try KVCache(layers: [layer(33, (4, 4), held: .all)], tokenCount: 33),
        ]
        for (index, cache) in caches.enumerated() {
            for recipe in ["archive(step=0.05,recent=64)", "archive(step=0.05,recent=0,sinks=40)", "archive(bits=5)"] {
                let archive = try await CacheArchive(archiving: cache, recipe: Recipe(recipe))
                var written = SnapshotBytes()
                try SnapshotWriter().write(archive, into: &written)
                let reader = try SnapshotReader(SharedBytes(written.bytes))
                try await reader.verify()
                let layers = try await Self.restored(try await reader.archive())
                for (restored, original) in zip(layers, cache.layers) {
                    #expect(restored.held == original.held && restored.state == original.state)
                    for part in CachePart.allCases {
                        let (new, old) = (restored[part].numbers, original[part].numbers)
                        #expect(new.count == old.count, "cache \(index)")
                        let worst = zip(new, old).map { abs($0 - $1) }.max() ?? 0
                        #expect(worst < 0.5, "cache \(index), \(recipe): \(worst)")
                    }
                }
            }
        }
    }

    @Test func cachesOfListedTokensAreRefused() async throws {
        let cache = try SmallModel.hybrid.cache()
        let error = await #expect(throws: CodecError.self) {
            _ = try await CacheArchive(archiving: cache, recipe: Recipe("archive(step=0.1)"))
        }
        #expect(error?.code == .unsupportedPlan)
    }

    @Test func fileHasTheSameArchive() async throws {
        let cache = try Self.cache(tokens: 1100)
        let archive = try await CacheArchive(archiving: cache, recipe: try Recipe("archive(bits=3,recent=32)"))
        #expect(archive.chunks.count == 2)
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

    /// A dump and the profile that was made of it: units of layers.
    private static func fixture() throws -> (cache: KVCache, profile: [LayerProfile]) {
        let cache = try CacheDump.read(path: ProjectFiles.fixture("archives/cache.safetensors"))
        let file = try SafetensorsFile(MappedFile.bytes(path: ProjectFiles.fixture("archives/cache.profile")))
        return (cache, try ModelProfile.read(file, metadata: cache.metadata, geometry: cache.geometry))
    }

    @Test func aProfilesBasesCodeAndRestore() async throws {
        let (cache, profile) = try Self.fixture()
        let recipe = try Recipe("archive(bits=3,recent=32)")
        let plain = try await CacheArchive(archiving: cache, recipe: recipe)
        let based = try await CacheArchive(archiving: cache.withProfile(profile), recipe: recipe)
        let bases = try #require(ArchiveBases(profile))
        #expect(based.plan.basisDigest == bases.digest && based.plan.units.count == 2 && based.profile == nil)
        #expect(based.metadata == cache.metadata)
        #expect(plain.metadata["recipe.rationale"]?.contains("no profile with bases") == true)
        // Channels at random have nothing that a basis could use.
        let coarse = Self.error(of: try await Self.restored(based, bases: bases), from: cache)
        #expect(coarse < 0.1, "\(coarse)")
        // Nearly exact where steps are small, as the basis has all components.
        let fine = try await CacheArchive(archiving: cache.withProfile(profile), recipe: Recipe("archive(bits=11)"))
        let error = Self.error(of: try await Self.restored(fine, bases: bases), from: cache)
        #expect(error < 0.01, "\(error)")
        let packed = try await CompressedCache(restoring: fine, profile: profile, recipe: Recipe("kivi(bits=8)"))
        #expect(packed.tokenCount == cache.tokenCount)
        await #expect(throws: ArchiveError.self) {
            try await CompressedCache(restoring: fine, profile: nil, recipe: Recipe("kivi(bits=8)"))
        }
    }

    @Test func anArchiveIsPackedForUse() async throws {
        let cache = try Self.cache(tokens: 420)
        let archive = try await CacheArchive(archiving: cache, recipe: try Recipe("archive(bits=6,recent=32)"))
        let packed = try await CompressedCache(
            restoring: archive,
            profile: nil,
            recipe: Recipe("think(keys=0.5)+kivi(bits=4,residual=32)")
        )
        #expect(packed.tokenCount == 420 && packed.tokens == cache.tokens)
        #expect(packed.layers.allSatisfy { $0.rowCount == 420 })
    }
}
