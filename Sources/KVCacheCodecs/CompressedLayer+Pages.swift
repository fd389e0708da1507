internal import ByteStorage
package import CThinkKernels

/// The blocks of a layer as attention reads them: where they lie, without reference counting in its loops.
@safe
package struct PageTable {
    /// One slab: the pages of 256 tokens, head by head.
    @safe
    fileprivate struct Entry {
        let base: UnsafeRawPointer
        let capacity: Int
    }

    fileprivate let entries: UnsafeBufferPointer<Entry>
    fileprivate let offsets: [Int]

    /// The blocks of a head of a chunk, one after another.
    package func page(chunk: Int, head: Int) -> UnsafeRawPointer {
        let entry = unsafe entries[chunk]
        return unsafe entry.base + entry.capacity * offsets[head]
    }
}

extension CompressedLayer {
    /// What a head's blocks hold and where.
    package func blockFormat(head: Int) -> tck_block_format { coders[head].format }

    /// Bytes of a block of a head.
    package func blockByteCount(head: Int) -> Int { coders[head].byteCount }

    package func plan(head: Int) -> HeadPlan { coders[head].plan }

    /// What stands in for the pruned channels of a head, zero for kept ones; nil if nothing but zeros does.
    package func prunedMeans(head: Int) -> [Float]? {
        coders[head].plan.prunedMeans.isEmpty ? nil : coders[head].prunedRow
    }

    /// Blocks of a chunk.
    package func blockCount(chunk: Int) -> Int { shape.blocks(ofChunk: chunk, blockCount: blockCount) }

    /// Lends the addresses of all pages.
    package func withPages<Result, Failure: Error>(
        _ body: (PageTable) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        defer { extendLifetime(slabs) }
        return unsafe try withUnsafeTemporaryAllocation(
            of: PageTable.Entry.self,
            capacity: slabs.count
        ) { (entries) throws(Failure) in
            for (chunk, slab) in slabs.enumerated() {
                unsafe slab.bytes.withUnsafeBytes { bytes in
                    guard let base = bytes.baseAddress else { preconditionFailure("a slab has blocks") }
                    unsafe entries.initializeElement(
                        at: chunk,
                        to: PageTable.Entry(base: base, capacity: slab.capacity)
                    )
                }
            }
            return unsafe try body(PageTable(entries: UnsafeBufferPointer(entries), offsets: pageOffsets))
        }
    }
}
