public import ThinkCompress

/// A snapshot's bytes to cut at: finds sections and mends checksums by Formats/snapshot.md, apart from the code under
/// test.
public struct SnapshotSurgery: Sendable {
    public static let headerBytes = 128
    public static let entryBytes = 40
    /// Bytes of a layer in GEOMETRY.
    public static let layerBytes = 40

    /// The kinds of sections by number.
    public enum Kind: Sendable {
        public static let metadata = 1
        public static let recipe = 2
        public static let geometry = 3
        public static let plan = 4
        public static let profile = 5
        public static let quality = 6
        public static let pages = 7
        public static let pageTable = 8
        public static let sinks = 9
        public static let window = 10
        public static let heldTokens = 11
        public static let state = 12
        public static let tokens = 13
        public static let positions = 14
        public static let chain = 15
        /// Those of a snapshot that is no archive.
        public static let all = metadata...chain
        public static let archivePlan = 16
        public static let archiveChunks = 17
        public static let archiveTable = 18
        public static let archiveWindow = 19
    }

    public struct Section: Sendable {
        public let kind: Int
        /// Where the section's entry is in the table.
        public let entry: Int
        public let range: Range<Int>
    }

    public var bytes: [UInt8]

    public init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    public init(path: String) throws {
        self.init(try fileBytes(path))
    }

    public var shared: SharedBytes { SharedBytes(bytes) }

    /// The little-endian integer at an offset.
    public func integer<Value: FixedWidthInteger>(_ type: Value.Type, at offset: Int) -> Value {
        var value: Value = 0
        for index in (0..<MemoryLayout<Value>.size).reversed() {
            value = value << 8 | Value(truncatingIfNeeded: bytes[offset + index])
        }
        return value
    }

    public mutating func put<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
        bytes.replaceSubrange(offset..<offset + MemoryLayout<Value>.size, with: littleEndianBytes(value))
    }

    /// The sections as the table has them; those that don't lie in the file are left out.
    public var sections: [Section] {
        guard bytes.count >= Self.headerBytes else { return [] }
        let count = min(Int(integer(UInt32.self, at: 24)), (bytes.count - Self.headerBytes) / Self.entryBytes)
        return (0..<count).compactMap { index in
            let entry = Self.headerBytes + index * Self.entryBytes
            let offset = integer(UInt64.self, at: entry + 8)
            let length = integer(UInt64.self, at: entry + 16)
            guard offset <= UInt64(bytes.count), length <= UInt64(bytes.count) - offset else { return nil }
            return Section(
                kind: Int(integer(UInt32.self, at: entry)),
                entry: entry,
                range: Int(offset)..<Int(offset + length)
            )
        }
    }

    public func section(_ kind: Int) -> Section? { sections.first { $0.kind == kind } }

    public func content(_ kind: Int) -> [UInt8]? { section(kind).map { [UInt8](bytes[$0.range]) } }

    /// Gives slabs, sections, and last header and table the checksums that they should have.
    public mutating func mendChecksums() {
        guard bytes.count >= Self.headerBytes else { return }
        let sections = sections
        for (kind, tableKind) in [(Kind.pages, Kind.pageTable), (Kind.archiveChunks, Kind.archiveTable)] {
            guard let parts = section(kind), let table = section(tableKind) else { continue }
            var start = parts.range.lowerBound
            for entry in stride(from: table.range.lowerBound, to: table.range.upperBound - 7, by: 8) {
                let end = start + Int(integer(UInt32.self, at: entry))
                guard end <= parts.range.upperBound else { break }
                // A record that isn't there has no checksum.
                if end > start || kind == Kind.pages { put(CRC32C.checksum(bytes[start..<end]), at: entry + 4) }
                start = end
            }
        }
        for section in sections where section.kind != Kind.pages && section.kind != Kind.archiveChunks {
            put(CRC32C.checksum(bytes[section.range]), at: section.entry + 32)
        }
        mendHeaderChecksum()
    }

    /// Gives header and table the checksum that they should have.
    public mutating func mendHeaderChecksum() {
        let end = Self.headerBytes + Int(integer(UInt32.self, at: 24)) * Self.entryBytes
        guard end <= bytes.count else { return }
        put(UInt32(0), at: 12)
        put(CRC32C.checksum(bytes[..<end]), at: 12)
    }
}

/// CRC-32C, bit by bit as Formats/snapshot.md, "Conventions", describes it.
public enum CRC32C {
    private static let table = (0..<256).map { byte -> UInt32 in
        (0..<8).reduce(UInt32(byte)) { value, _ in value >> 1 ^ (value & 1 == 1 ? 0x82F6_3B78 : 0) }
    }

    public static func checksum(_ bytes: ArraySlice<UInt8>) -> UInt32 {
        // No sequence's methods: without optimization these take most of some tests' time.
        bytes.withUnsafeBufferPointer { bytes in
            table.withUnsafeBufferPointer { table in
                var value = UInt32.max
                var index = 0
                while index < bytes.count {
                    value = value >> 8 ^ table[Int(UInt8(truncatingIfNeeded: value) ^ bytes[index])]
                    index += 1
                }
                return ~value
            }
        }
    }
}
