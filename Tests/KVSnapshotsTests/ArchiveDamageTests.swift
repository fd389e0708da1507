import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Damaged archives are refused or restored to numbers within bounds, and never crash the reader.
@Suite struct ArchiveDamageTests {
    static let samples = ["channels", "low-bits", "profile-layers", "channels-bf16", "window-f32"]

    private static func sample(_ name: String) throws -> SnapshotSurgery {
        try SnapshotSurgery(path: ProjectFiles.vector("archives/\(name).tkv"))
    }

    /// Reads an archive, and restores it where no profile is needed or `layers` is the one.
    private static func restore(_ file: SnapshotSurgery) async throws -> [KVCacheLayer] {
        let reader = try SnapshotReader(file.shared)
        try await reader.verify()
        let archive = try await reader.archive()
        let path = ProjectFiles.vector("profiles/layers.safetensors")
        let profile = try? ModelProfile.read(
            SafetensorsFile(MappedFile.bytes(path: path)),
            metadata: [:],
            geometry: reader.geometry
        )
        let restoration = try ArchiveRestoration(archive, bases: profile.flatMap { ArchiveBases($0) })
        var layers: [KVCacheLayer] = []
        for group in restoration.layerGroups { layers += try await restoration.layers(group, as: .float32) }
        return layers
    }

    @Test("an archive that was cut off is truncated", arguments: samples)
    func truncation(name: String) async throws {
        let whole = try Self.sample(name).bytes
        var lengths = [0, 8, 127, 128]
        for section in SnapshotSurgery(whole).sections {
            for place in [section.entry, section.range.lowerBound, section.range.upperBound] {
                lengths += [place - 1, place, place + 1]
            }
        }
        for length in lengths where length < whole.count {
            let error = await #expect(throws: SnapshotError.self) {
                try await Self.restore(SnapshotSurgery(Array(whole[..<length])))
            }
            #expect(error?.code == .truncated && error?.offset == length, "\(length) bytes")
        }
    }

    @Test("no flipped bit of an archive goes unnoticed", arguments: samples, [1 as UInt64])
    func flippedBits(name: String, seed: UInt64) async throws {
        let sample = try Self.sample(name)
        var generator = SplitMix64(seed: seed)
        for _ in 0..<150 {
            var damaged = sample
            let place = Int.random(in: 0..<damaged.bytes.count, using: &generator)
            damaged.bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
            let file = damaged
            await #expect(throws: SnapshotError.self, "byte \(place)") { try await Self.restore(file) }
        }
    }

    /// What lies behind checksums must hold, too: section by section, a bit at a time and several bytes.
    @Test("damage with mended checksums is refused or restored within bounds", arguments: samples, [1 as UInt64])
    func mendedDamage(name: String, seed: UInt64) async throws {
        let sample = try Self.sample(name)
        var generator = SplitMix64(seed: seed)
        var restored = 0
        for section in sample.sections {
            let isTelling = section.kind >= SnapshotSurgery.Kind.archivePlan
            for round in 0..<(isTelling ? 50 : 12) {
                var damaged = sample
                for _ in 0...round % 3 {
                    let place = Int.random(in: section.range, using: &generator)
                    damaged.bytes[place] =
                        Bool.random(using: &generator)
                        ? damaged.bytes[place] ^ 1 << UInt8.random(in: 0..<8, using: &generator)
                        : [0, 1, 0x7F, 0x80, 0xFF].randomElement(using: &generator) ?? 0
                }
                damaged.mendChecksums()
                do {
                    for layer in try await Self.restore(damaged) {
                        for part in CachePart.allCases where layer[part].headDimension > 0 {
                            // Sinks are exact, and what they are in a damaged section.
                            let rows = layer[part][tokens: min(40, layer.keys.tokens)..<layer.keys.tokens]
                            #expect(rows.tokens == 0 || rows.numbers.allSatisfy { $0.magnitude <= 65504 })
                        }
                    }
                    restored += 1
                } catch let error as SnapshotError {
                    #expect((0...damaged.bytes.count).contains(error.offset), "\(error)")
                } catch is ArchiveError {
                    // A plan that needs another profile.
                }
            }
        }
        #expect(restored > 0)
    }

    @Test("a section that is shorter or longer than it must be is refused", arguments: samples)
    func otherLengths(name: String) async throws {
        let sample = try Self.sample(name)
        for section in sample.sections where section.kind >= SnapshotSurgery.Kind.archivePlan {
            for change in [-64, -1, 1, 64] {
                var damaged = sample
                for field in [16, 24] {
                    let length = Int(damaged.integer(UInt64.self, at: section.entry + field)) + change
                    damaged.put(UInt64(max(length, 0)), at: section.entry + field)
                }
                damaged.mendChecksums()
                let file = damaged
                await #expect(throws: SnapshotError.self, "section \(section.kind), \(change)") {
                    try await Self.restore(file)
                }
            }
        }
    }
}
