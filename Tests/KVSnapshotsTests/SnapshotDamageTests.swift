import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Damaged files are refused or read right, and never crash the reader.
@Suite struct SnapshotDamageTests {
    /// A small file with every section, and the cache in it.
    struct Sample: Sendable {
        let file: SnapshotSurgery
        let content: CacheContent

        /// The sample of a zstd level, or with raw sections, which is made once: that takes longer than most tests do.
        static func of(level: Int?) async throws -> Sample { try await (level == nil ? raw : compressed).value }

        private static let raw = Task { try await Sample(level: nil) }
        private static let compressed = Task { try await Sample(level: 3) }

        private init(level: Int?) async throws {
            let folder = try TemporaryFolder()
            var model = MixedCache()
            let cache = try model.make()
            let compressed = try await CompressedCache(
                compressing: cache,
                recipe: Recipe("think(keys=0.5,values=0.3,restore=mean)+kivi(bits=2,residual=32)"),
                sinks: 4
            )
            let quality = try await CacheComparison(original: cache, compressed: compressed).measure()
            try await SnapshotWriter(compressionLevel: level)
                .write(compressed, quality: quality, to: folder.file("a.tkv"))
            file = try SnapshotSurgery(path: folder.file("a.tkv"))
            content = CacheContent(compressed)
        }
    }

    /// Reads a file as `verify` does.
    private static func verify(_ file: SnapshotSurgery) async throws {
        try await SnapshotReader(file.shared).verify()
    }

    /// Reads a file as `restore` would without verifying all of it first.
    private static func read(_ file: SnapshotSurgery) async throws -> CompressedCache {
        try await SnapshotReader(file.shared).cache(verifyingPages: true)
    }

    @Test("the sample has every section, and is of the level", arguments: [nil, 3])
    func sampleHasEverySection(level: Int?) async throws {
        let sample = try await Sample.of(level: level)
        #expect(sample.file.sections.map(\.kind) == Array(SnapshotSurgery.Kind.all))
        let codings = sample.file.sections.map { sample.file.integer(UInt32.self, at: $0.entry + 4) }
        #expect(codings.contains(1) == (level != nil))
        try await Self.verify(sample.file)
        #expect(CacheContent(try await Self.read(sample.file)).difference(from: sample.content) == nil)
    }

    @Test("a file that was cut off is truncated where it ends", arguments: [nil, 3], [1 as UInt64])
    func truncation(level: Int?, seed: UInt64) async throws {
        let sample = try await Sample.of(level: level)
        let whole = sample.file.bytes
        var generator = SplitMix64(seed: seed)
        var lengths = [0, 1, 7, 8, 9, 127, 128, 129]
        for section in sample.file.sections {
            for place in [section.entry, section.range.lowerBound, section.range.upperBound] {
                lengths += [place - 1, place, place + 1]
            }
        }
        lengths += (0..<200).map { _ in Int.random(in: 0..<whole.count, using: &generator) }
        for length in lengths where length < whole.count {
            let error = await #expect(throws: SnapshotError.self) {
                try await Self.verify(SnapshotSurgery(Array(whole[..<length])))
            }
            #expect(error?.code == .truncated, "\(length) bytes")
            #expect(error?.offset == length)
        }
    }

    @Test("a file that goes on is refused", arguments: [1, 64, 5000])
    func longerFile(count: Int) async throws {
        let sample = try await Sample.of(level: nil)
        let error = await #expect(throws: SnapshotError.self) {
            try await Self.verify(SnapshotSurgery(sample.file.bytes + [UInt8](repeating: 0, count: count)))
        }
        #expect(error?.code == .invalidHeader)
        #expect(error?.offset == 16)
    }

    @Test("no flipped bit goes unnoticed", arguments: [nil, 3], [1, 2] as [UInt64])
    func flippedBits(level: Int?, seed: UInt64) async throws {
        let sample = try await Sample.of(level: level)
        var generator = SplitMix64(seed: seed)
        for _ in 0..<250 {
            var damaged = sample.file
            let place = Int.random(in: 0..<damaged.bytes.count, using: &generator)
            let bit = UInt8(1) << UInt8.random(in: 0..<8, using: &generator)
            damaged.bytes[place] ^= bit
            let file = damaged
            let error = await #expect(throws: SnapshotError.self, "bit \(bit) of byte \(place)") {
                try await Self.verify(file)
            }
            #expect((0...damaged.bytes.count).contains(error?.offset ?? -1))
            // Without `verify` a cache may come from a file whose damage lies elsewhere, but never a wrong one.
            if let cache = try? await Self.read(damaged) {
                #expect(CacheContent(cache).difference(from: sample.content) == nil, "bit \(bit) of byte \(place)")
            }
        }
    }

    @Test("every byte of header and section table counts", arguments: [nil, 3], 0..<8 as Range<UInt8>)
    func flippedBitsOfTable(level: Int?, bit: UInt8) async throws {
        let sample = try await Sample.of(level: level)
        let end = SnapshotSurgery.headerBytes + sample.file.sections.count * SnapshotSurgery.entryBytes
        for place in 0..<end {
            var damaged = sample.file
            damaged.bytes[place] ^= 1 << bit
            let error = #expect(throws: SnapshotError.self, "byte \(place)") {
                try SnapshotReader(damaged.shared)
            }
            let fault = Self.headerFault(at: place, of: damaged)
            #expect(error?.code == fault.code, "byte \(place)")
            #expect(error?.offset == fault.offset, "byte \(place)")
        }
    }

    /// What must be said of a header or table that was damaged at one place, after the order of checks.
    private static func headerFault(at place: Int, of file: SnapshotSurgery) -> (code: SnapshotError.Code, offset: Int)
    {
        let sectionCount = Int(file.integer(UInt32.self, at: 24))
        let tableEnd = SnapshotSurgery.headerBytes + sectionCount * SnapshotSurgery.entryBytes
        let isLonger = file.integer(UInt64.self, at: 16) > UInt64(file.bytes.count)
        switch place {
        case 0..<8: return (.notASnapshot, 0)
        case 8..<12 where !(2...3).contains(file.integer(UInt32.self, at: 8)): return (.unsupportedVersion, 8)
        case 16..<24: return isLonger ? (.truncated, file.bytes.count) : (.invalidHeader, 16)
        case 24..<28 where !(2...64).contains(sectionCount): return (.invalidHeader, 24)
        case 24..<28 where tableEnd > file.bytes.count: return (.truncated, file.bytes.count)
        default: return (.headerChecksumMismatch, 12)
        }
    }

    @Test("bytes that were written over are noticed", arguments: [nil, 3], [7 as UInt64])
    func overwrittenBytes(level: Int?, seed: UInt64) async throws {
        let sample = try await Sample.of(level: level)
        var generator = SplitMix64(seed: seed)
        for _ in 0..<100 {
            var damaged = sample.file
            let start = Int.random(in: 0..<damaged.bytes.count, using: &generator)
            let end = min(start + Int.random(in: 1...600, using: &generator), damaged.bytes.count)
            for place in start..<end { damaged.bytes[place] = UInt8.random(in: 0...255, using: &generator) }
            guard damaged.bytes != sample.file.bytes else { continue }
            let file = damaged
            await #expect(throws: SnapshotError.self, "bytes \(start)..<\(end)") { try await Self.verify(file) }
            if let cache = try? await Self.read(damaged) {
                #expect(CacheContent(cache).difference(from: sample.content) == nil, "bytes \(start)..<\(end)")
            }
        }
    }

    @Test("two slabs that changed places are noticed")
    func exchangedSlabs() async throws {
        let sample = try await Sample.of(level: nil)
        var damaged = sample.file
        let pages = try #require(damaged.section(SnapshotSurgery.Kind.pages)).range
        let slab = Int(
            damaged.integer(
                UInt32.self,
                at: try #require(damaged.section(SnapshotSurgery.Kind.pageTable)).range.lowerBound
            )
        )
        let (first, second) = (pages.lowerBound..<pages.lowerBound + slab, slab..<2 * slab)
        let other = pages.lowerBound + second.lowerBound..<pages.lowerBound + second.upperBound
        let bytes = damaged.bytes
        damaged.bytes.replaceSubrange(first, with: bytes[other])
        damaged.bytes.replaceSubrange(other, with: bytes[first])
        let file = damaged
        let error = await #expect(throws: SnapshotError.self) { try await Self.read(file) }
        #expect(error?.code == .checksumMismatch)
        #expect(error?.offset == pages.lowerBound)
    }

    /// Checksums tell of accidents, not of intent: what lies behind them must hold, too.
    @Test("damage with mended checksums is refused or read, without a crash", arguments: [nil, 3], [1, 2] as [UInt64])
    func mendedDamage(level: Int?, seed: UInt64) async throws {
        let sample = try await Sample.of(level: level)
        var generator = SplitMix64(seed: seed)
        typealias Kind = SnapshotSurgery.Kind
        let telling = [
            Kind.metadata, Kind.recipe, Kind.geometry, Kind.plan, Kind.quality, Kind.pageTable, Kind.heldTokens,
            Kind.state,
        ]
        // Places that mean something, rather than codes: header, table, and the small sections.
        let places =
            Array(24..<SnapshotSurgery.headerBytes + sample.file.sections.count * SnapshotSurgery.entryBytes)
            + sample.file.sections.filter { telling.contains($0.kind) }.flatMap { Array($0.range) }
        var loaded = 0
        for round in 0..<400 {
            var damaged = sample.file
            for _ in 0...round % 3 {
                let place =
                    round % 8 == 0
                    ? Int.random(in: 24..<damaged.bytes.count, using: &generator)
                    : places.randomElement(using: &generator) ?? 24
                damaged.bytes[place] =
                    Bool.random(using: &generator)
                    ? damaged.bytes[place] ^ 1 << UInt8.random(in: 0..<8, using: &generator)
                    : [0, 1, 0x7F, 0x80, 0xFF].randomElement(using: &generator) ?? 0
            }
            damaged.mendChecksums()
            do {
                try await Self.verify(damaged)
                // What passes must be usable to the last number.
                let cache = try await Self.read(damaged)
                #expect(try DumpTensor.all(cache).count >= 4)
                loaded += 1
            } catch let error as SnapshotError {
                #expect((0...damaged.bytes.count).contains(error.offset), "\(error)")
            }
        }
        #expect((1..<400).contains(loaded))
    }

    @Test("garbage is no snapshot", arguments: [1, 2, 3, 4] as [UInt64])
    func garbage(seed: UInt64) async throws {
        var generator = SplitMix64(seed: seed)
        for _ in 0..<100 {
            let count = Int.random(in: 128...3000, using: &generator)
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
            let error = #expect(throws: SnapshotError.self) {
                try SnapshotReader(SharedBytes(bytes))
            }
            #expect(error?.code == .notASnapshot)
            #expect(error?.offset == 0)
        }
    }

    @Test("garbage that begins like a snapshot is refused", arguments: [1, 2, 3, 4] as [UInt64])
    func garbageWithMagic(seed: UInt64) async throws {
        var generator = SplitMix64(seed: seed)
        for round in 0..<100 {
            let count = Int.random(in: 128 + 64 * 40...4000, using: &generator)
            var file = SnapshotSurgery((0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) })
            file.bytes.replaceSubrange(0..<8, with: [0x89, 0x54, 0x4B, 0x56, 0x0D, 0x0A, 0x1A, 0x0A])
            file.put(UInt32(2), at: 8)
            file.put(UInt64(count), at: 16)
            file.put(UInt32.random(in: 2...64, using: &generator), at: 24)
            if round % 2 == 0 { file.mendHeaderChecksum() }
            let error = #expect(throws: SnapshotError.self) {
                try SnapshotReader(file.shared)
            }
            #expect(error?.code == (round % 2 == 0 ? .invalidHeader : .headerChecksumMismatch))
            #expect(error?.offset == (round % 2 == 0 ? 28 : 12))
        }
    }

    @Test("a file shorter than the header is truncated, whatever it holds", arguments: [1, 8, 64, 127])
    func shortGarbage(count: Int) {
        let error = #expect(throws: SnapshotError.self) {
            try SnapshotReader(SharedBytes([UInt8](repeating: 0x41, count: count)))
        }
        #expect(error?.code == .truncated)
        #expect(error?.offset == count)
    }
}
