internal import ByteStorage
internal import CachePacking
internal import ComputeRuntime
internal import KVCacheModel

/// Where the slabs of a file lie: Formats/snapshot.md, "How a cache is cut" and "PAGES and PAGE TABLE".
struct SlabDirectory: Sendable {
    private let layers: [LayerOutline]
    /// Bytes of a block of all KV heads, per layer.
    private let blockBytes: [Int]
    let chunkCount: Int

    init(layers: [LayerOutline], plans: [LayerPlan], shape: BlockShape) {
        self.layers = layers
        blockBytes = plans.map { $0.blockByteCount(shape: shape) }
        chunkCount = layers.lazy.map(\.extent).chunkCount
    }

    var layerCount: Int { layers.count }
    var count: Int { chunkCount * layerCount }

    /// Bytes of all slabs after decoding; nil for more than there can be.
    var byteCount: Int? {
        SnapshotFormat.sum(
            zip(layers, blockBytes).lazy.map { SnapshotFormat.product([$0.extent.blocks.count, $1]) }
        )
    }

    /// Bytes of a slab after decoding; 0 where the layer has no blocks of the chunk.
    func byteCount(chunk: Int, layer: Int) -> Int {
        layers[layer].extent.blocks(ofChunk: chunk).count * blockBytes[layer]
    }

    /// A slab as the page table has it.
    struct Slab: Sendable {
        let chunk: Int
        let layer: Int
        /// The slab's bytes in the file.
        let range: Range<Int>
        let byteCount: Int
        let checksum: UInt32
        let coding: SectionCoding
    }

    /// The slabs that there are, chunk by chunk and layer by layer.
    ///
    /// - Parameter table: the content of the page table.
    func slabs(table: ByteReader, pages: SectionEntry) throws(SnapshotError) -> [Slab] {
        var table = table
        var slabs: [Slab] = []
        var start = pages.offset
        for index in 0..<count {
            let (chunk, layer) = (index / layerCount, index % layerCount)
            let byteCount = byteCount(chunk: chunk, layer: layer)
            let entry = table.position
            let stored = Int(try table.integer(UInt32.self, "a slab's stored length"))
            // A slab that a coding would not make smaller is raw.
            let coding = stored == byteCount ? .raw : pages.coding
            guard stored <= byteCount, (stored > 0) == (byteCount > 0),
                coding.allows(length: byteCount, storedLength: stored), stored <= pages.range.upperBound - start
            else {
                throw table.error(at: entry, "a slab of \(byteCount) bytes can't be stored in \(stored)")
            }
            let checksum = try table.integer(UInt32.self, "a slab's checksum")
            guard byteCount > 0 || checksum == 0 else {
                throw table.error(at: entry, "a slab of no bytes has the checksum \(checksum), must be 0")
            }
            if byteCount > 0 {
                slabs.append(
                    Slab(
                        chunk: chunk,
                        layer: layer,
                        range: start..<start + stored,
                        byteCount: byteCount,
                        checksum: checksum,
                        coding: coding
                    )
                )
            }
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
        if verifying || slab.coding != .raw || file.isStable {
            guard Kernels.checksum(stored.span) == slab.checksum else {
                throw SnapshotError(
                    .checksumMismatch,
                    at: slab.range.lowerBound,
                    "a slab of pages, bytes \(slab.range), does not have its checksum"
                )
            }
        }
        return try slab.coding.decode(stored, byteCount: slab.byteCount, offset: slab.range.lowerBound)
    }
}
