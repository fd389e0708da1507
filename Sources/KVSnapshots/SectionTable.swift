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
    public let encoding: SectionEncoding
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
        writer.append(encoding.rawValue)
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
        let encodingNumber = try reader.integer(UInt32.self, "a section's encoding")
        guard let encoding = SectionEncoding(rawValue: encodingNumber) else {
            throw reader.error(at: start, "section encoding \(encodingNumber) is unknown")
        }
        try check(kind != .plan || encoding == .raw, "the plan must be raw")
        self.encoding = encoding
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
        guard let length = Int(exactly: numbers.length), length == storedLength || encoding != .raw else {
            throw reader.error(
                at: start,
                "section \(number) of \(storedLength) stored bytes can't have \(numbers.length)"
            )
        }
        offset = Int(numbers.offset)
        self.storedLength = storedLength
        self.length = length
        checksum = try reader.integer(UInt32.self, "a section's checksum")
        try check(kind != .pages || checksum == 0, "the pages have their checksums in the page table, not here")
        try check(try reader.integer(UInt32.self, "a reserved field") == 0, "a reserved field is not 0")
    }

    init(kind: SectionKind, encoding: SectionEncoding, offset: Int, storedLength: Int, length: Int, checksum: UInt32) {
        self.kind = kind
        kindNumber = kind.rawValue
        self.encoding = encoding
        self.offset = offset
        self.storedLength = storedLength
        self.length = length
        self.checksum = checksum
        entryOffset = 0
    }
}

/// The section table of a file.
struct SectionTable: Sendable {
    let entries: [SectionEntry]

    /// Reads and checks the table against the header: order, places, and the lengths that follow from the shape.
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
            try Self.checkLength(of: entry, header: header, reader: reader)
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
        try checkPresence(header)
    }

    subscript(kind: SectionKind) -> SectionEntry? { entries.first { $0.kind == kind } }

    /// The length that a section must have, as far as header and table tell; nil where its content tells.
    static func requiredLength(of kind: SectionKind, header: SnapshotHeader) -> Int?? {
        let geometry = header.geometry
        let product = SnapshotFormat.product
        let heads = geometry.layers * geometry.kvHeads
        switch kind {
        case .metadata, .recipe, .plan, .pages: return .none
        case .profile: return product([heads, geometry.headDimension, MemoryLayout<Float>.size])
        case .quality: return product([geometry.layers + 1, QualitySection.rowBytes])
        case .pageTable:
            let chunks = header.shape.chunkCount(blockCount: header.blockCount)
            return product([chunks, geometry.layers, SnapshotFormat.pageTableEntryBytes])
        case .window: return product([2, heads, header.windowTokenCount, header.shape.rowBytes])
        case .tokens, .positions: return product([header.tokenCount, MemoryLayout<Int32>.size])
        case .chain: return product([header.tokenCount / BlockShape.pageTokens, SnapshotFormat.digestBytes])
        }
    }

    private static func checkLength(
        of entry: SectionEntry,
        header: SnapshotHeader,
        reader: ByteReader
    ) throws(SnapshotError) {
        guard let kind = entry.kind, let required = requiredLength(of: kind, header: header) else { return }
        guard entry.length == required else {
            throw reader.error(
                at: entry.entryOffset,
                "section \(kind.name) has \(entry.length) bytes and must have \(required.map(String.init) ?? "too many")"
            )
        }
    }

    private func checkPresence(_ header: SnapshotHeader) throws(SnapshotError) {
        let hasBlocks = header.blockTokenCount > 0
        var required: [(SectionKind, Bool)] = [(.recipe, true), (.plan, true), (.pages, hasBlocks)]
        required += [(.pageTable, hasBlocks), (.window, header.windowTokenCount > 0)]
        required.append((.chain, self[.tokens] != nil && header.tokenCount >= BlockShape.pageTokens))
        for (kind, isRequired) in required {
            if isRequired && self[kind] == nil {
                throw SnapshotError(
                    .invalidSectionTable,
                    at: SnapshotFormat.sectionCountOffset,
                    "the section \(kind.name) is missing"
                )
            }
            if !isRequired, let entry = self[kind] {
                throw SnapshotError(
                    .invalidSectionTable,
                    at: entry.entryOffset,
                    "the section \(kind.name) has no place in this file"
                )
            }
        }
    }
}
