internal import ByteStorage
internal import CachePacking
internal import ComputeRuntime

/// A section to be written.
struct SnapshotSection {
    let kind: SectionKind
    /// The content, in pieces that follow each other.
    let pieces: [SharedBytes]

    init(kind: SectionKind, pieces: [SharedBytes]) {
        self.kind = kind
        self.pieces = pieces
    }

    init(kind: SectionKind, bytes: [UInt8]) {
        self.init(kind: kind, pieces: [SharedBytes(bytes)])
    }
}

/// Lays sections out one after the other and keeps their table.
struct SectionLayout {
    private let encoder: SectionEncoder
    private var entries: [SectionEntry] = []
    /// Where the last section ends.
    private var end: Int

    /// - Parameter sectionCount: how many sections will be appended.
    init(sectionCount: Int, encoder: SectionEncoder) {
        self.encoder = encoder
        end = SnapshotFormat.headerBytes + sectionCount * SnapshotFormat.tableEntryBytes
    }

    /// Appends a section, encoded if asked for and worth it.
    mutating func append(_ section: SnapshotSection, to sink: inout some SnapshotSink & ~Copyable) throws {
        let stored = try StoredBytes(section.pieces, encoder: section.kind.isAlwaysRaw ? .raw : encoder)
        let start = SnapshotFormat.align(end)
        try stored.write(to: &sink, at: start)
        end = start + stored.byteCount
        entries.append(
            SectionEntry(
                index: entries.count,
                kind: section.kind,
                coding: stored.coding,
                offset: start,
                storedLength: stored.byteCount,
                length: section.pieces.byteCount,
                checksum: stored.checksum
            )
        )
    }

    /// Slabs that are checksummed or encoded at the same time.
    private static let batch = 32

    /// Appends the pages, chunk by chunk and layer by layer, and the page table.
    mutating func appendPages(
        of layers: [CompressedLayer],
        to sink: inout some SnapshotSink & ~Copyable,
        progress: ProgressHandler?
    ) async throws {
        let encoder = encoder
        let chunkCount = layers.lazy.map(\.extent).chunkCount
        let slabCount = chunkCount * layers.count
        let start = SnapshotFormat.align(end)
        var table = ByteWriter()
        end = start
        for first in stride(from: 0, to: slabCount, by: Self.batch) {
            let count = min(Self.batch, slabCount - first)
            let slots = Slots<StoredBytes>(count: count)
            try await forEachConcurrently(count: count) { index in
                let slab = first + index
                slots[index] = try StoredBytes(
                    layers[slab % layers.count].slabPieces(chunk: slab / layers.count),
                    encoder: encoder
                )
            }
            for stored in slots.values {
                table.append(UInt32(stored.byteCount))
                table.append(stored.checksum)
                try stored.write(to: &sink, at: end)
                end += stored.byteCount
            }
            progress?(Double(first + count) / Double(slabCount))
        }
        entries.append(
            SectionEntry(
                index: entries.count,
                kind: .pages,
                coding: encoder.coding,
                offset: start,
                storedLength: end - start,
                length: layers.reduce(0) { $0 + $1.blockByteCount },
                checksum: 0
            )
        )
        try append(SnapshotSection(kind: .pageTable, bytes: table.bytes), to: &sink)
    }

    /// Appends an archive's chunks, each record with its checksum in the table.
    mutating func appendChunks(_ chunks: [[SharedBytes]], to sink: inout some SnapshotSink & ~Copyable) throws {
        let start = SnapshotFormat.align(end)
        var table = ByteWriter()
        end = start
        for record in chunks.joined() {
            let stored = try StoredBytes(record.count > 0 ? [record] : [], encoder: .raw)
            table.append(UInt32(stored.byteCount))
            table.append(stored.checksum)
            try stored.write(to: &sink, at: end)
            end += stored.byteCount
        }
        entries.append(
            SectionEntry(
                index: entries.count,
                kind: .archiveChunks,
                coding: .raw,
                offset: start,
                storedLength: end - start,
                length: end - start,
                checksum: 0
            )
        )
        try append(SnapshotSection(kind: .archiveTable, bytes: table.bytes), to: &sink)
    }

    /// Writes header and table.
    ///
    /// - Returns: how large everything is.
    func finish(_ header: SnapshotHeader, to sink: inout some SnapshotSink & ~Copyable) throws -> SnapshotSize {
        var writer = ByteWriter()
        header.encode(into: &writer, fileLength: end, sectionCount: entries.count)
        for entry in entries { entry.encode(into: &writer) }
        writer.replace(Kernels.checksum(writer.shared.span), at: SnapshotFormat.headerChecksumOffset)
        try sink.write(writer.shared.span, at: 0)
        return SnapshotSize(entries, fileBytes: end)
    }
}

/// Bytes as they go to the file: as they are, or encoded where that is asked for and worth it.
private struct StoredBytes: Sendable {
    let pieces: [SharedBytes]
    let coding: SectionCoding
    let checksum: UInt32

    init(_ pieces: [SharedBytes], encoder: SectionEncoder) throws(MemoryError) {
        if pieces.byteCount > 0, let encoded = try encoder.encode(pieces) {
            self.pieces = [encoded]
            coding = encoder.coding
        } else {
            self.pieces = pieces
            coding = .raw
        }
        checksum = self.pieces.reduce(0) { Kernels.checksum($1.span, continuing: $0) }
    }

    var byteCount: Int { pieces.byteCount }

    func write(to sink: inout some SnapshotSink & ~Copyable, at offset: Int) throws {
        var position = offset
        for piece in pieces {
            try sink.write(piece.span, at: position)
            position += piece.count
        }
    }
}
