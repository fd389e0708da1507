internal import ByteStorage
package import CThinkKernels
internal import KVCacheModel

/// The blocks of a layer as attention reads them: where they lie, without reference counting in its loops.
@safe
package struct PageTable {
    /// One slab: the pages of 256 places, head by head.
    @safe
    fileprivate struct Entry {
        let base: UnsafeRawPointer
        let capacity: Int
    }

    fileprivate let entries: UnsafeBufferPointer<Entry>
    fileprivate let offsets: [Int]

    /// The blocks of a head that lie one after another.
    ///
    /// - Parameter slab: which of the layer's slabs, from 0.
    package func page(slab: Int, head: Int) -> UnsafeRawPointer {
        let entry = unsafe entries[slab]
        return unsafe entry.base + entry.capacity * offsets[head]
    }
}

extension CompressedLayer {
    /// What a head's blocks hold and where.
    package func blockFormat(head: Int) -> tck_block_format { coders[head].format }

    /// What is added to every key of a head's blocks, by channel: the means of pruned and centered channels; nil for
    /// nothing but zeros.
    package func keyMeans(head: Int) -> [Float]? {
        plan.heads[head].keyMeans.isEmpty ? nil : coders[head].keyMeans
    }

    /// What turned a head's keys and values into components, where these are what its blocks have.
    package func components(head: Int) -> (keys: ComponentTransform, values: ComponentTransform?)? {
        coders[head].components
    }

    /// The value channels that a head's blocks have, ascending; nil if they have all.
    package func keptValueChannels(head: Int) -> [UInt16]? { coders[head].keptValueChannels }

    /// Means of a head's values: of the kept channels, one after another, if they are coded less their mean; and what
    /// stands in for pruned ones, by channel of all. Empty where there are none.
    package func valueMeans(head: Int) -> (kept: [Float], pruned: [Float]) {
        (coders[head].keptValueMeans, coders[head].prunedValueMeans)
    }

    /// The places whose rows are to be read from the blocks of a chunk.
    package func readablePlaces(ofChunk chunk: Int) -> Range<Int> {
        extent.readablePlaces(ofBlocks: extent.blocks(ofChunk: chunk), sinks: plan.sinks)
    }

    /// The places of a head that have tokens of a range; those of tokens that the layer doesn't hold yet follow.
    package func places(ofTokens tokens: Range<Int>, head: Int) -> Range<Int> {
        func place(_ token: Int) -> Int {
            token < tokenCount ? held.place(ofTokensFrom: token, head: head) : extent.end + token - tokenCount
        }
        return place(tokens.lowerBound)..<place(tokens.upperBound)
    }

    /// Lends the addresses of all pages.
    package func withPages<Result, Failure: Error>(
        _ body: (PageTable) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        defer { extendLifetime(slabs) }
        return unsafe try withUnsafeTemporaryAllocation(
            of: PageTable.Entry.self,
            capacity: slabs.count
        ) { (entries) throws(Failure) in
            for (number, slab) in slabs.enumerated() {
                unsafe slab.bytes.withUnsafeBytes { bytes in
                    guard let base = bytes.baseAddress else { preconditionFailure("a slab has blocks") }
                    unsafe entries.initializeElement(
                        at: number,
                        to: PageTable.Entry(base: base, capacity: slab.capacity)
                    )
                }
            }
            return unsafe try body(PageTable(entries: UnsafeBufferPointer(entries), offsets: pageOffsets))
        }
    }
}
