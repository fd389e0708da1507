internal import ByteStorage
internal import CachePacking
internal import KVCacheModel

/// One section of a file: Formats/snapshot.md, "Section table".
public struct SectionEntry: Sendable, Equatable {
    /// The kind, or nil for one that this version ignores.
    public let kind: SectionKind?
    /// The kind's number in the file.
    public let kindNumber: UInt32
    /// Whether the section is stored raw or as zstd frames.
    public let coding: SectionCoding
    /// The file's byte where it begins.
    public let offset: Int
    /// Bytes in the file.
    public let storedLength: Int
    /// Bytes after decoding.
    public let length: Int
    let checksum: UInt32

    /// Where its entry is in the file.
    let entryOffset: Int

    var range: Range<Int> { offset..<offset + storedLength }

    func encode(into writer: inout ByteWriter) {
        writer.append(kindNumber)
        writer.append(coding.rawValue)
        writer.append(UInt64(offset))
        writer.append(UInt64(storedLength))
        writer.append(UInt64(length))
        writer.append(checksum)
        writer.append(UInt32(0))
    }

    /// Reads an entry, its fields in the order that `encode` has them.
    ///
    /// - Parameter end: where the section before it ends, or the table.
    fileprivate init(
        decoding reader: inout ByteReader,
        after former: SectionEntry?,
        end: Int,
        fileLength: Int
    ) throws(SnapshotError) {
        let start = reader.position
        entryOffset = start
        func check(_ condition: Bool, _ message: @autoclosure () -> String) throws(SnapshotError) {
            if !condition { throw reader.error(at: start, message()) }
        }
        let number = try reader.integer(UInt32.self, "a section's kind")
        try check(number > former?.kindNumber ?? 0, "section kind \(number) is out of order")
        kindNumber = number
        kind = SectionKind(rawValue: number)
        try check(kind != nil || number >= SectionKind.firstIgnorable, "section kind \(number) is unknown")
        let codingNumber = try reader.integer(UInt32.self, "a section's coding")
        guard let coding = SectionCoding(rawValue: codingNumber) else {
            throw reader.error(at: start, "section coding \(codingNumber) is unknown")
        }
        try check(kind?.isAlwaysRaw != true || coding == .raw, "section \(number) must be raw")
        self.coding = coding
        let numbers = (
            offset: try reader.integer(UInt64.self, "a section's offset"),
            storedLength: try reader.integer(UInt64.self, "a section's stored length"),
            length: try reader.integer(UInt64.self, "a section's length")
        )
        try check(
            numbers.offset == UInt64(SnapshotFormat.align(end)),
            "section \(number) begins at byte \(numbers.offset), must begin at \(SnapshotFormat.align(end))"
        )
        let available = fileLength - min(SnapshotFormat.align(end), fileLength)
        try check(
            numbers.storedLength > 0 && numbers.storedLength <= UInt64(available),
            "section \(number) has \(numbers.storedLength) bytes and \(available) remain in the file"
        )
        let storedLength = Int(numbers.storedLength)
        guard let length = Int(exactly: numbers.length), coding.allows(length: length, storedLength: storedLength)
        else {
            throw reader.error(
                at: start,
                "section \(number) of \(storedLength) stored bytes can't have \(numbers.length)"
            )
        }
        offset = Int(numbers.offset)
        self.storedLength = storedLength
        self.length = length
        checksum = try reader.integer(UInt32.self, "a section's checksum")
        try check(
            kind?.hasChecksumsInTable != true || checksum == 0,
            "section \(number) has its checksums in a table, not here"
        )
        try check(try reader.integer(UInt32.self, "a reserved field") == 0, "a reserved field is not 0")
    }

    /// An entry of a table that is written.
    ///
    /// - Parameter index: which one of the table it is.
    init(
        index: Int,
        kind: SectionKind,
        coding: SectionCoding,
        offset: Int,
        storedLength: Int,
        length: Int,
        checksum: UInt32
    ) {
        self.kind = kind
        kindNumber = kind.rawValue
        self.coding = coding
        self.offset = offset
        self.storedLength = storedLength
        self.length = length
        self.checksum = checksum
        entryOffset = SnapshotFormat.headerBytes + index * SnapshotFormat.tableEntryBytes
    }
}

/// The section table of a file.
struct SectionTable: Sendable {
    let entries: [SectionEntry]

    /// Reads and checks the table against the header: order and places, and that GEOMETRY is there, which tells the rest.
    ///
    /// - Parameter front: the first bytes of the file, the table at least.
    init(
        decoding front: SharedBytes,
        sectionCount: Int,
        header: SnapshotHeader,
        fileLength: Int
    ) throws(SnapshotError) {
        let tableEnd = SnapshotFormat.headerBytes + sectionCount * SnapshotFormat.tableEntryBytes
        var reader = ByteReader(front[0..<tableEnd], origin: 0, code: .invalidSectionTable)
        _ = try reader.bytes(count: SnapshotFormat.headerBytes, "the header")
        var entries: [SectionEntry] = []
        var end = tableEnd
        for _ in 0..<sectionCount {
            let entry = try SectionEntry(decoding: &reader, after: entries.last, end: end, fileLength: fileLength)
            if entry.kind == .geometry {
                try entry.check(length: header.layerCount * GeometrySection.entryBytes)
            }
            entries.append(entry)
            end = entry.range.upperBound
        }
        guard end == fileLength else {
            throw SnapshotError(
                .invalidSectionTable,
                at: entries.last?.entryOffset ?? SnapshotFormat.sectionCountOffset,
                "the last section ends at byte \(end) and the file has \(fileLength)"
            )
        }
        self.entries = entries
        guard self[.geometry] != nil else { throw Self.missing(.geometry) }
    }

    subscript(kind: SectionKind) -> SectionEntry? { entries.first { $0.kind == kind } }

    /// Checks that sections are there, and as long, as the layers make them; PAGES' length depends on the plan.
    func check(_ header: SnapshotHeader, layers: [LayerOutline]) throws(SnapshotError) {
        let requirements = SectionRequirements(
            header: header,
            layers: layers,
            hasTokens: self[.tokens] != nil,
            isArchive: self[.archivePlan] != nil,
            hasBases: self[.bases] != nil
        )
        for entry in entries {
            guard let kind = entry.kind, let length = requirements.length(of: kind) else { continue }
            try entry.check(length: length)
        }
        for kind in SectionKind.allCases {
            switch (requirements.presence(of: kind), self[kind]) {
            case (.required, nil): throw Self.missing(kind)
            case (.forbidden, let entry?):
                throw SnapshotError(
                    .invalidSectionTable,
                    at: entry.entryOffset,
                    "the section \(kind.name) has no place in this file"
                )
            default: break
            }
        }
    }

    private static func missing(_ kind: SectionKind) -> SnapshotError {
        SnapshotError(
            .invalidSectionTable,
            at: SnapshotFormat.sectionCountOffset,
            "the section \(kind.name) is missing"
        )
    }
}

extension SectionEntry {
    /// - Parameter length: what the section must have; nil for more than a file can.
    func check(length: Int?) throws(SnapshotError) {
        guard self.length != length else { return }
        throw SnapshotError(
            .invalidSectionTable,
            at: entryOffset,
            "section \(kind?.name ?? String(kindNumber)) has \(self.length) bytes and must have "
                + (length.map(String.init) ?? "too many")
        )
    }
}
