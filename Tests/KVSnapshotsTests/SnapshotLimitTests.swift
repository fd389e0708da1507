import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Headers and tables that promise more than a file can hold, with checksums that are right.
@Suite struct SnapshotLimitTests {
    struct Field: Sendable {
        let offset: Int
        let value: UInt64
        let is64Bit: Bool

        static func word(_ offset: Int, _ value: UInt32) -> Field {
            Field(offset: offset, value: UInt64(value), is64Bit: false)
        }
        static func long(_ offset: Int, _ value: UInt64) -> Field {
            Field(offset: offset, value: value, is64Bit: true)
        }
    }

    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let fields: [Field]
        let code: SnapshotError.Code
        /// A place in the file, or that of a section's entry.
        var offset = 0
        var entryOfSection: Int?
        var testDescription: String { name }
    }

    static let maximumTokens = UInt64(Int32.max)

    static let cases = [
        Case(
            name: "as many tokens as there may be, all but a few in the window",
            fields: [.long(48, maximumTokens)],
            code: .invalidHeader,
            offset: 68
        ),
        Case(
            name: "as many tokens as there may be, in blocks",
            fields: [.long(48, maximumTokens), .long(56, maximumTokens / 32 * 32)],
            code: .invalidSectionTable,
            entryOfSection: 7
        ),
        Case(
            name: "more tokens than there may be",
            fields: [.long(48, maximumTokens + 1)],
            code: .invalidHeader,
            offset: 48
        ),
        Case(name: "2^63 tokens", fields: [.long(48, 1 << 63)], code: .invalidHeader, offset: 48),
        Case(
            name: "all block tokens there can be in 64 bits",
            fields: [.long(56, .max)],
            code: .invalidHeader,
            offset: 56
        ),
        Case(name: "4096 layers", fields: [.word(32, 4096)], code: .invalidSectionTable, entryOfSection: 4),
        Case(name: "4097 layers", fields: [.word(32, 4097)], code: .invalidHeader, offset: 32),
        Case(
            name: "1024 KV heads",
            fields: [.word(36, 1024), .word(44, 0)],
            code: .invalidSectionTable,
            entryOfSection: 4
        ),
        Case(name: "2^32 - 1 KV heads", fields: [.word(36, .max)], code: .invalidHeader, offset: 36),
        Case(
            name: "a head dimension of 1024",
            fields: [.word(40, 1024)],
            code: .invalidSectionTable,
            entryOfSection: 4
        ),
        Case(
            name: "everything at its limit",
            fields: [
                .word(28, 3), .word(32, 4096), .word(36, 1024), .word(40, 1024), .word(44, 65536),
                .long(48, maximumTokens), .long(56, maximumTokens / 128 * 128), .word(64, 128), .word(68, 65536),
            ],
            code: .invalidSectionTable,
            entryOfSection: 4
        ),
        Case(name: "a residual window of 2^32 - 1", fields: [.word(68, .max)], code: .invalidHeader, offset: 68),
        Case(name: "a block length of 2^31", fields: [.word(64, 1 << 31)], code: .invalidHeader, offset: 64),
    ]

    private static func sample() async throws -> SnapshotSurgery {
        try await SnapshotDamageTests.Sample(level: nil).file
    }

    @Test("a header with huge numbers is refused", arguments: cases)
    func hugeHeader(_ test: Case) async throws {
        var file = try await Self.sample()
        for field in test.fields {
            if field.is64Bit {
                file.put(field.value, at: field.offset)
            } else {
                file.put(UInt32(field.value), at: field.offset)
            }
        }
        file.mendHeaderChecksum()
        let expected = try test.entryOfSection.map { try #require(file.section($0)).entry } ?? test.offset
        let error = #expect(throws: SnapshotError.self) { try SnapshotReader(file.shared, registry: .standard) }
        #expect(error?.code == test.code)
        #expect(error?.offset == expected)
    }

    @Test(
        "a section longer than the file is refused at its entry",
        arguments: 1...11,
        [1 << 62, .max, 1 << 40] as [UInt64]
    )
    func hugeSection(kind: Int, length: UInt64) async throws {
        var file = try await Self.sample()
        let entry = try #require(file.section(kind)).entry
        file.put(length, at: entry + 16)
        file.put(length, at: entry + 24)
        file.mendHeaderChecksum()
        let error = #expect(throws: SnapshotError.self) { try SnapshotReader(file.shared, registry: .standard) }
        #expect(error?.code == .invalidSectionTable)
        #expect(error?.offset == entry)
    }

    @Test("a frame that promises more than 256 times its length is refused", arguments: [1, 2])
    func hugeFrame(kind: Int) async throws {
        var file = try await Self.sample()
        let section = try #require(file.section(kind))
        file.put(UInt32(1), at: section.entry + 4)
        file.put(UInt64(1) << 40, at: section.entry + 24)
        file.mendHeaderChecksum()
        let error = #expect(throws: SnapshotError.self) { try SnapshotReader(file.shared, registry: .standard) }
        #expect(error?.code == .invalidFrame)
        #expect(error?.offset == section.range.lowerBound)
    }

    @Test("pages that promise more than their plan makes are refused at their entry")
    func hugePages() async throws {
        var file = try await Self.sample()
        let entry = try #require(file.section(6)).entry
        file.put(UInt32(1), at: entry + 4)
        file.put(UInt64(1) << 50, at: entry + 24)
        file.mendHeaderChecksum()
        let error = #expect(throws: SnapshotError.self) { try SnapshotReader(file.shared, registry: .standard) }
        #expect(error?.code == .invalidSectionTable)
        #expect(error?.offset == entry)
    }

    @Test("text lengths beyond their section are refused", arguments: [1 as UInt32, 255, 1 << 31, .max])
    func hugeText(length: UInt32) async throws {
        var file = try await Self.sample()
        let metadata = try #require(file.section(1)).range.lowerBound
        // The value after the first key.
        let place = metadata + 8 + Int(file.integer(UInt32.self, at: metadata + 4))
        guard length != file.integer(UInt32.self, at: place) else { return }
        file.put(length, at: place)
        file.mendChecksums()
        let error = #expect(throws: SnapshotError.self) { try SnapshotReader(file.shared, registry: .standard) }
        #expect(error?.code == .invalidMetadata)
        if length > 1 { #expect(error?.offset == place) }
    }
}
