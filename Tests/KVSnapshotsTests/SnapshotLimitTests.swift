import Foundation
import TestSupport
import Testing
import ThinkCompress

/// Headers and tables that promise more than a file can hold, with checksums that are right.
@Suite struct SnapshotLimitTests {
    typealias Kind = SnapshotSurgery.Kind

    /// A place in a file.
    enum Place: Sendable {
        case header(Int)
        /// In the first layer's part of GEOMETRY.
        case layer(Int)
        case entry(Int)

        func offset(in file: SnapshotSurgery) throws -> Int {
            switch self {
            case .header(let offset): offset
            case .layer(let offset):
                try #require(file.section(SnapshotSurgery.Kind.geometry)).range.lowerBound + offset
            case .entry(let kind): try #require(file.section(kind)).entry
            }
        }
    }

    struct Field: Sendable {
        let place: Place
        let value: UInt64
        let is64Bit: Bool

        static func word(_ place: Place, _ value: UInt32) -> Field {
            Field(place: place, value: UInt64(value), is64Bit: false)
        }
        static func long(_ place: Place, _ value: UInt64) -> Field {
            Field(place: place, value: value, is64Bit: true)
        }
    }

    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let fields: [Field]
        let code: SnapshotError.Code
        /// Where the error is.
        let place: Place
        var testDescription: String { name }
    }

    static let maximumTokens = UInt64(Int32.max)

    /// Fields of a file with one layer that holds all tokens.
    static let cases = [
        Case(
            name: "as many tokens as there may be",
            fields: [.long(.header(48), maximumTokens)],
            code: .invalidGeometry,
            place: .layer(24)
        ),
        Case(
            name: "as many tokens as there may be, all but a few in the window",
            fields: [.long(.header(48), maximumTokens), .long(.layer(24), maximumTokens)],
            code: .invalidGeometry,
            place: .layer(32)
        ),
        Case(
            name: "as many tokens as there may be, in blocks",
            fields: [
                .long(.header(48), maximumTokens), .long(.layer(24), maximumTokens),
                .long(.layer(32), maximumTokens / 32 * 32),
            ],
            code: .invalidSectionTable,
            place: .entry(Kind.pageTable)
        ),
        Case(
            name: "more tokens than there may be",
            fields: [.long(.header(48), maximumTokens + 1)],
            code: .invalidHeader,
            place: .header(48)
        ),
        Case(
            name: "2^63 tokens",
            fields: [.long(.header(48), 1 << 63)],
            code: .invalidHeader,
            place: .header(48)
        ),
        Case(
            name: "all tokens there can be in 64 bits, in a layer",
            fields: [.long(.layer(24), .max)],
            code: .invalidGeometry,
            place: .layer(24)
        ),
        Case(
            name: "all tokens there can be in 64 bits, in blocks",
            fields: [.long(.layer(32), .max)],
            code: .invalidGeometry,
            place: .layer(32)
        ),
        Case(
            name: "4096 layers",
            fields: [.word(.header(32), 4096)],
            code: .invalidSectionTable,
            place: .entry(Kind.geometry)
        ),
        Case(
            name: "4097 layers",
            fields: [.word(.header(32), 4097)],
            code: .invalidHeader,
            place: .header(32)
        ),
        Case(
            name: "1024 KV heads",
            fields: [.word(.layer(0), 1024), .word(.layer(4), 0)],
            code: .invalidSectionTable,
            place: .entry(Kind.profile)
        ),
        Case(
            name: "2^32 - 1 KV heads",
            fields: [.word(.layer(0), .max)],
            code: .invalidGeometry,
            place: .layer(0)
        ),
        Case(
            name: "a key dimension of 1024",
            fields: [.word(.layer(8), 1024)],
            code: .invalidSectionTable,
            place: .entry(Kind.profile)
        ),
        Case(
            name: "a value dimension of 1024",
            fields: [.word(.layer(12), 1024)],
            code: .invalidSectionTable,
            place: .entry(Kind.window)
        ),
        Case(
            name: "everything at its limit",
            fields: [
                .word(.header(28), 3), .word(.header(36), 128), .word(.header(40), 65536),
                .long(.header(48), maximumTokens), .word(.layer(0), 1024), .word(.layer(4), 65536),
                .word(.layer(8), 1024), .word(.layer(12), 1024), .word(.layer(20), 64),
                .long(.layer(24), maximumTokens), .long(.layer(32), maximumTokens / 128 * 128),
            ],
            code: .invalidSectionTable,
            place: .entry(Kind.profile)
        ),
        Case(
            name: "2^32 - 1 sinks",
            fields: [.word(.layer(20), .max)],
            code: .invalidGeometry,
            place: .layer(20)
        ),
        Case(
            name: "a residual window of 2^32 - 1",
            fields: [.word(.header(40), .max)],
            code: .invalidHeader,
            place: .header(40)
        ),
        Case(
            name: "a block length of 2^31",
            fields: [.word(.header(36), 1 << 31)],
            code: .invalidHeader,
            place: .header(36)
        ),
    ]

    private static func sample() async throws -> SnapshotSurgery {
        try await SnapshotDamageTests.Sample.of(level: nil).file
    }

    @Test("a header, or a layer, with huge numbers is refused", arguments: cases)
    func hugeNumbers(_ test: Case) async throws {
        var model = TestCache()
        (model.layers, model.kvHeads, model.queryHeads, model.headDimension) = (1, 1, 2, 8)
        var snapshot = SnapshotBytes()
        try await SnapshotWriter().write(
            CompressedCache(compressing: model.makeQuickly(), recipe: Recipe("kivi(bits=2)")),
            into: &snapshot
        )
        var file = SnapshotSurgery(snapshot.bytes)
        for field in test.fields {
            let offset = try field.place.offset(in: file)
            if field.is64Bit {
                file.put(field.value, at: offset)
            } else {
                file.put(UInt32(field.value), at: offset)
            }
        }
        file.mendChecksums()
        let expected = try test.place.offset(in: file)
        let error = #expect(throws: SnapshotError.self) { try SnapshotReader(file.shared) }
        #expect(error?.code == test.code)
        #expect(error?.offset == expected)
    }

    @Test(
        "a section longer than the file is refused at its entry",
        arguments: Kind.all,
        [1 << 62, .max, 1 << 40] as [UInt64]
    )
    func hugeSection(kind: Int, length: UInt64) async throws {
        var file = try await Self.sample()
        let entry = try #require(file.section(kind)).entry
        file.put(length, at: entry + 16)
        file.put(length, at: entry + 24)
        file.mendHeaderChecksum()
        let error = #expect(throws: SnapshotError.self) { try SnapshotReader(file.shared) }
        #expect(error?.code == .invalidSectionTable)
        #expect(error?.offset == entry)
    }

    @Test(
        "a frame that promises more than 256 times its length is refused at its entry, before it is looked at",
        arguments: [Kind.metadata, Kind.recipe],
        [0, 1, 1 << 40] as [UInt64]
    )
    func hugeFrame(kind: Int, excess: UInt64) async throws {
        var file = try await Self.sample()
        let section = try #require(file.section(kind))
        file.put(UInt32(1), at: section.entry + 4)
        file.put(UInt64(section.range.count) * 256 + excess, at: section.entry + 24)
        file.mendHeaderChecksum()
        let error = #expect(throws: SnapshotError.self) { try SnapshotReader(file.shared) }
        #expect(error?.code == (excess == 0 ? .invalidFrame : .invalidSectionTable))
        #expect(error?.offset == (excess == 0 ? section.range.lowerBound : section.entry))
    }

    @Test("a few bytes of pages can't promise a cache of the limits")
    func promisedPages() throws {
        let file = SnapshotSurgery.promisingPages()
        let error = #expect(throws: SnapshotError.self) { try SnapshotReader(file.shared) }
        #expect(error?.code == .invalidSectionTable)
        #expect(error?.offset == file.section(Kind.pages)?.entry)
    }

    @Test("pages that promise more than their plan makes are refused at their entry")
    func hugePages() async throws {
        var file = try await Self.sample()
        let entry = try #require(file.section(Kind.pages)).entry
        file.put(UInt32(1), at: entry + 4)
        file.put(UInt64(1) << 50, at: entry + 24)
        file.mendHeaderChecksum()
        let error = #expect(throws: SnapshotError.self) { try SnapshotReader(file.shared) }
        #expect(error?.code == .invalidSectionTable)
        #expect(error?.offset == entry)
    }

    @Test("text lengths beyond their section are refused", arguments: [1 as UInt32, 255, 1 << 31, .max])
    func hugeText(length: UInt32) async throws {
        var file = try await Self.sample()
        let metadata = try #require(file.section(Kind.metadata)).range.lowerBound
        // The value after the first key.
        let place = metadata + 8 + Int(file.integer(UInt32.self, at: metadata + 4))
        try #require(length != file.integer(UInt32.self, at: place))
        file.put(length, at: place)
        file.mendChecksums()
        let error = #expect(throws: SnapshotError.self) { try SnapshotReader(file.shared) }
        #expect(error?.code == .invalidMetadata)
        // After a value of one byte the next key's length is wrong.
        #expect(error?.offset == (length == 1 ? place + 5 : place))
    }

    #if os(Linux)
        @Test(
            "opening many heads takes memory in proportion to the file and what its frames decode to",
            .disabled("the sanitizer takes memory of its own") { AddressSanitizer.isPresent }
        )
        func memoryOfManyHeads() async throws {
            let folder = try TemporaryFolder()
            let path = folder.file("heads.tkv")
            try Data(Self.manyHeads(layers: 8).bytes).write(to: URL(filePath: path))
            let measured = folder.file("bytes")
            // In a process that has done nothing else.
            await #expect(processExitsWith: .success) { [path = path as String, measured = measured as String] in
                let before = try PeakMemory.ofThisProcess()
                let cache = try await SnapshotReader(path: path).cache()
                let grown = try PeakMemory.ofThisProcess() - before
                try Data("\(grown) \(cache.fullPrecisionByteCount)".utf8).write(to: URL(filePath: measured))
            }
            let numbers = try String(contentsOfFile: measured, encoding: .utf8).split(separator: " ").compactMap {
                Int($0)
            }
            let window = 8 * 1024 * 1024 * 2 * 2
            let plans = 8 * 1024 * 20
            try #require(numbers.count == 2 && numbers[1] == window)
            // A row of float32 numbers for every head would be as much as the window once more.
            #expect(numbers[0] < window + Self.memoryOfProgram + 32 * plans)
        }
    #endif

    /// What a process takes for code and tables that it first needs when it opens a snapshot.
    private static let memoryOfProgram = 12 << 20

    /// A snapshot of one token of zeros, 1,024 heads a layer with 1,024 channels, two of which are kept: others in every
    /// head, so that no two plans are equal.
    private static func manyHeads(layers: Int) -> SnapshotSurgery {
        let (heads, dimension) = (1024, 1024)
        let twoBits: [UInt8] = [2, 1, 0, 0]
        var plans: [UInt8] = []
        for number in 0..<layers * heads {
            let first = number % dimension
            let second = (first + 1 + number / dimension) % dimension
            plans += [1, 0].flatMap { littleEndianBytes(UInt16($0)) } + twoBits
            plans += twoBits + littleEndianBytes(UInt32(2))
            plans += [min(first, second), max(first, second)].flatMap { littleEndianBytes(UInt16($0)) }
        }
        let layer =
            [heads, 0, dimension, dimension, 0, 0].flatMap { littleEndianBytes(UInt32($0)) }
            + [1, 0].flatMap { littleEndianBytes(UInt64($0)) }
        let window = layers * heads * dimension * 2 * 2
        return SnapshotSurgery(
            layers: layers,
            sections: [
                (Kind.geometry, (0..<layers).flatMap { _ in layer }, nil), (Kind.plan, plans, nil),
                (Kind.window, Self.frameOfZeros(window), window),
            ]
        )
    }

    /// A zstd frame of zeros that expands as much as a reader allows: blocks of 128 KiB, 508 bytes raw and the rest by
    /// their repetition.
    private static func frameOfZeros(_ count: Int) -> [UInt8] {
        var frame: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0xE0] + littleEndianBytes(UInt64(count))
        for start in stride(from: 0, to: count, by: 131_072) {
            let length = min(131_072, count - start)
            let raw = min(508, length)
            func header(_ size: Int, type: Int, isLast: Bool) -> ArraySlice<UInt8> {
                littleEndianBytes(UInt32(size << 3 | type << 1 | (isLast ? 1 : 0))).prefix(3)
            }
            frame += header(raw, type: 0, isLast: false) + [UInt8](repeating: 0, count: raw)
            frame += header(length - raw, type: 1, isLast: start + length == count) + [0]
        }
        return frame
    }
}
