internal import ByteStorage
internal import CachePacking
internal import ComputeRuntime
internal import KVCacheModel

/// Where the slabs of a file lie: Formats/snapshot.md, "How a cache is cut" and "PAGES and PAGE TABLE".
struct SlabDirectory: Sendable {
    private let header: SnapshotHeader
    /// Bytes of a block of all KV heads, per layer.
    private let blockBytes: [Int]
    /// Bytes of a block of all KV heads of all layers.
    let blockBytesOfAllLayers: Int

    init(header: SnapshotHeader, plans: [[HeadPlan]]) {
        self.header = header
        blockBytes = plans.map { heads in heads.reduce(0) { $0 + $1.blockByteCount(shape: header.shape) } }
        blockBytesOfAllLayers = blockBytes.reduce(0, +)
    }

    var chunkCount: Int { header.shape.chunkCount(blockCount: header.blockCount) }
    var layerCount: Int { blockBytes.count }
    var count: Int { chunkCount * layerCount }

    /// Bytes of a slab after decoding.
    func byteCount(chunk: Int, layer: Int) -> Int {
        header.shape.blocks(ofChunk: chunk, blockCount: header.blockCount) * blockBytes[layer]
    }

    /// A slab as the page table has it.
    struct Slab: Sendable {
        /// The slab's bytes in the file.
        let range: Range<Int>
        let byteCount: Int
        let checksum: UInt32

        var isRaw: Bool { range.count == byteCount }
    }

    /// The slabs, chunk by chunk and layer by layer.
    ///
    /// - Parameter table: the content of the page table.
    func slabs(
        table: ByteReader,
        pages: SectionEntry
    ) throws(SnapshotError) -> [Slab] {
        var table = table
        var slabs: [Slab] = []
        var start = pages.offset
        for index in 0..<count {
            let byteCount = byteCount(chunk: index / layerCount, layer: index % layerCount)
            let entry = table.position
            let stored = Int(try table.integer(UInt32.self, "a slab's stored length"))
            let allowed =
                pages.encoding == .raw
                ? stored == byteCount
                : stored > 0 && stored <= byteCount
            guard allowed, stored <= pages.range.upperBound - start else {
                throw table.error(at: entry, "a slab of \(byteCount) bytes can't be stored in \(stored)")
            }
            let checksum = try table.integer(UInt32.self, "a slab's checksum")
            slabs.append(Slab(range: start..<start + stored, byteCount: byteCount, checksum: checksum))
            start += stored
        }
        guard start == pages.range.upperBound else {
            throw table.error(
                at: max(table.position - SnapshotFormat.pageTableEntryBytes, 0),
                "the slabs end at byte \(start), the section pages at \(pages.range.upperBound)"
            )
        }
        return slabs
    }
}

extension SnapshotReader {
    var slabs: SlabDirectory { SlabDirectory(header: header, plans: plans) }

    /// The slabs of the file, chunk by chunk and layer by layer.
    func slabList() throws -> [SlabDirectory.Slab] {
        guard let pages = table[.pages] else { return [] }
        return try slabs.slabs(
            table: source.requiredReader(.pageTable, code: .invalidPageTable),
            pages: pages
        )
    }

    /// A slab's bytes, checked against their checksum if `verifying`, if they must be decoded, or if they were read.
    func bytes(of slab: SlabDirectory.Slab, verifying: Bool) throws -> SharedBytes {
        let stored = try file.bytes(slab.range)
        if verifying || !slab.isRaw || file.isStable {
            guard Kernels.checksum(stored.span) == slab.checksum else {
                throw SnapshotError(
                    .checksumMismatch,
                    at: slab.range.lowerBound,
                    "a slab of pages, bytes \(slab.range), does not have its checksum"
                )
            }
        }
        guard !slab.isRaw else { return stored }
        return try Zstandard.decompress(stored, byteCount: slab.byteCount, offset: slab.range.lowerBound)
    }
}
