package import ByteStorage
public import KVCacheModel

/// One layer of a compressed cache: blocks of the older tokens, packed by the plan, and the residual window.
///
/// A value: copies share memory until one of them appends.
public struct CompressedLayer: Sendable {
    public let shape: BlockShape
    /// Which layer of the cache it is.
    public let index: Int
    /// Blocks of each KV head.
    public package(set) var blockCount = 0
    let coders: [BlockCoder]
    /// Bytes before each head's page, per block of a page, and last the bytes of all heads.
    let pageOffsets: [Int]
    var slabs: [Slab] = []
    var window: ResidualWindow

    /// An empty layer.
    ///
    /// - Parameter plans: one for each KV head.
    public init(shape: BlockShape, index: Int, plans: [HeadPlan]) {
        precondition(plans.count == shape.kvHeads, "every KV head needs a plan")
        self.shape = shape
        self.index = index
        coders = BlockCoder.coders(for: plans, shape: shape)
        pageOffsets = coders.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1.byteCount) }
        window = ResidualWindow(shape: shape)
    }

    /// A layer whose blocks and window lie in a file or in another's memory.
    ///
    /// - Parameters:
    ///   - slabs: for each 256 tokens the bytes of their pages, `slabByteCount` long.
    ///   - window: keys and values of the tokens after the blocks, or nil if there are none.
    package init(
        shape: BlockShape,
        index: Int,
        plans: [HeadPlan],
        blockCount: Int,
        slabs: [SharedBytes],
        window: KVCacheLayer?
    ) {
        self = CompressedLayer(shape: shape, index: index, plans: plans).holding(
            slabs: slabs,
            blockCount: blockCount,
            window: window
        )
    }

    /// A layer of the same plans whose blocks and window lie in a file or in another's memory; see above.
    package func holding(slabs: [SharedBytes], blockCount: Int, window: KVCacheLayer?) -> CompressedLayer {
        var layer = self
        layer.blockCount = blockCount
        layer.slabs = slabs.enumerated().map { chunk, bytes in
            precondition(bytes.count == layer.slabByteCount(chunk: chunk), "a slab must be as long as its blocks")
            return Slab(bytes: bytes, capacity: shape.blocks(ofChunk: chunk, blockCount: blockCount))
        }
        precondition(layer.slabs.count == layer.chunkCount, "every chunk needs its slab")
        layer.window = window.map { ResidualWindow(shape: shape, layer: $0) } ?? ResidualWindow(shape: shape)
        return layer
    }

    /// The plan of each KV head.
    public var plans: [HeadPlan] { coders.map(\.plan) }

    /// Tokens in blocks; the newer ones are in the residual window.
    public var blockTokenCount: Int { blockCount * shape.blockLength }

    /// Tokens in blocks and in the residual window.
    public var tokenCount: Int { blockTokenCount + window.count }

    /// The residual window's keys and values, or nil if it is empty.
    public var residualWindow: KVCacheLayer? {
        guard let keys = window[.keys], let values = window[.values] else { return nil }
        return KVCacheLayer(keys: keys, values: values)
    }

    /// Bytes of the blocks of all KV heads of `blockLength` tokens.
    public var blockBytes: Int { pageOffsets[shape.kvHeads] }

    /// Chunks of 256 tokens that the blocks take, the last perhaps in part.
    public var chunkCount: Int { shape.chunkCount(blockCount: blockCount) }

    /// Bytes of the slab of a chunk, as in a file.
    public func slabByteCount(chunk: Int) -> Int {
        shape.blocks(ofChunk: chunk, blockCount: blockCount) * blockBytes
    }

    /// The bytes of a slab as in a file, in one piece or, while the slab has room for more, head by head.
    package func slabPieces(chunk: Int) -> [SharedBytes] {
        let slab = slabs[chunk]
        let count = shape.blocks(ofChunk: chunk, blockCount: blockCount)
        if slab.capacity == count { return [slab.bytes] }
        return (0..<shape.kvHeads).map { head in
            let start = slab.capacity * pageOffsets[head]
            return slab.bytes[start..<start + count * coders[head].byteCount]
        }
    }

    /// The same layer in memory of its own, shared with no file and no copy.
    ///
    /// - Throws: `CodecError` if there is no such memory.
    public func detached() throws(CodecError) -> CompressedLayer {
        var copy = self
        do {
            for chunk in slabs.indices {
                let capacity = shape.blocks(ofChunk: chunk, blockCount: blockCount)
                let slab = try Slab(blockBytes: blockBytes, capacity: capacity)
                slab.fill(from: slabPieces(chunk: chunk))
                copy.slabs[chunk] = slab
            }
            copy.window = try window.detached()
        } catch {
            throw CodecError(error, layer: index)
        }
        return copy
    }

    /// A buffer for tokens of this layer.
    func emptyBuffer(byteCount: Int) throws(CodecError) -> AlignedBuffer {
        do {
            return try AlignedBuffer(byteCount: byteCount)
        } catch {
            throw CodecError(error, layer: index)
        }
    }

    /// The bytes of a block.
    package func block(_ block: Int, head: Int) -> SharedBytes {
        precondition(block >= 0 && block < blockCount, "there is no such block")
        let slab = slabs[block / shape.blocksPerPage]
        let start = blockOffset(block, head: head, capacity: slab.capacity)
        return slab.bytes[start..<start + coders[head].byteCount]
    }

    /// Where a block lies in its slab.
    func blockOffset(_ block: Int, head: Int, capacity: Int) -> Int {
        capacity * pageOffsets[head] + block % shape.blocksPerPage * coders[head].byteCount
    }
}
