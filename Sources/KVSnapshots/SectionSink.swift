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

/// Writes sections one after the other and keeps their table.
struct SectionSink: ~Copyable {
    /// Nil where only sizes are of interest.
    private let file: AtomicFileWriter?
    private let compressionLevel: Int?
    private var entries: [SectionEntry] = []
    /// Where the last section ends.
    private var end: Int

    /// - Parameter sectionCount: how many sections will be appended.
    init(file: consuming AtomicFileWriter?, sectionCount: Int, compressionLevel: Int?) {
        self.file = file
        self.compressionLevel = compressionLevel
        end = SnapshotFormat.headerBytes + sectionCount * SnapshotFormat.tableEntryBytes
    }

    /// Appends a section, compressed if asked for and worth it.
    mutating func append(_ section: SnapshotSection) throws {
        // Plans become many small values in memory: their bytes in the file bound these.
        let level = section.kind == .plan ? nil : compressionLevel
        let stored = try StoredBytes(section.pieces, compressionLevel: level)
        let start = SnapshotFormat.align(end)
        try write(stored, at: start)
        entries.append(
            SectionEntry(
                kind: section.kind,
                encoding: stored.isFrame ? .zstd : .raw,
                offset: start,
                storedLength: stored.byteCount,
                length: section.pieces.byteCount,
                checksum: stored.checksum
            )
        )
        end = start + stored.byteCount
    }

    /// Slabs that are checksummed or compressed at the same time.
    private static let batch = 32

    /// Appends the pages, chunk by chunk and layer by layer, and the page table.
    mutating func appendPages(of cache: CompressedCache, progress: ProgressHandler?) async throws {
        let layers = cache.layers
        let level = compressionLevel
        let slabCount = layers[0].chunkCount * layers.count
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
                    compressionLevel: level
                )
            }
            for stored in slots.values {
                table.append(UInt32(stored.byteCount))
                table.append(stored.checksum)
                try write(stored, at: end)
                end += stored.byteCount
            }
            progress?(Double(first + count) / Double(slabCount))
        }
        entries.append(
            SectionEntry(
                kind: .pages,
                encoding: level == nil ? .raw : .zstd,
                offset: start,
                storedLength: end - start,
                length: cache.blockByteCount,
                checksum: 0
            )
        )
        try append(SnapshotSection(kind: .pageTable, bytes: table.bytes))
    }

    /// Writes header and table, and lets the file appear under its name.
    ///
    /// - Returns: how large it is.
    consuming func finish(_ header: SnapshotHeader) throws -> SnapshotSize {
        let size = SnapshotSize(entries, fileBytes: end)
        var writer = ByteWriter()
        header.encode(into: &writer, fileLength: end, sectionCount: entries.count)
        for entry in entries { entry.encode(into: &writer) }
        writer.replace(Kernels.checksum(writer.shared.span), at: SnapshotFormat.headerChecksumOffset)
        try file?.write(writer.shared.span, at: 0)
        try file?.commit()
        return size
    }

    private func write(_ stored: StoredBytes, at offset: Int) throws {
        var position = offset
        for piece in stored.pieces {
            try file?.write(piece.span, at: position)
            position += piece.count
        }
    }
}

/// Bytes as they go to the file: as they are, or as one zstd frame where that is asked for and worth it.
private struct StoredBytes: Sendable {
    let pieces: [SharedBytes]
    let isFrame: Bool
    let checksum: UInt32

    init(_ pieces: [SharedBytes], compressionLevel: Int?) throws(MemoryError) {
        if let compressionLevel, let frame = try Zstandard.compress(pieces.joined(), level: compressionLevel) {
            self.pieces = [frame]
            isFrame = true
        } else {
            self.pieces = pieces
            isFrame = false
        }
        checksum = self.pieces.reduce(0) { Kernels.checksum($1.span, continuing: $0) }
    }

    var byteCount: Int { pieces.byteCount }
}

extension [SharedBytes] {
    fileprivate var byteCount: Int { reduce(0) { $0 + $1.count } }

    /// The pieces as one, copied only if there are several.
    fileprivate func joined() throws(MemoryError) -> SharedBytes {
        if count == 1 { return self[0] }
        let buffer = try AlignedBuffer(byteCount: byteCount)
        var end = 0
        for piece in self {
            buffer.copy(piece, at: end)
            end += piece.count
        }
        return buffer.shared
    }
}
