package import ByteStorage
public import KVCacheModel

/// One layer of a compressed cache: blocks of the older rows, packed by the plan, sinks, and the residual window.
///
/// A row is what the layer holds of one token; rows are counted from 0, and lie at places (`LayerExtent`).
/// A value: copies share memory until one of them appends.
public struct CompressedLayer: Sendable {
    public let shape: BlockShape
    public let plan: LayerPlan
    /// Which layer of the cache it is.
    public let index: Int
    /// Which rows there are, and which of them are in blocks.
    public internal(set) var extent: LayerExtent
    /// Tokens of the cache.
    public internal(set) var tokenCount: Int
    /// Which tokens the rows are of.
    public internal(set) var held: HeldTokens
    /// What the layer keeps beside keys and values.
    public internal(set) var state: [LayerState]
    let coders: [BlockCoder]
    /// Bytes before each head's page, per block of a page, and last the bytes of all heads.
    let pageOffsets: [Int]
    /// The slabs of the chunks that the layer has blocks of.
    var slabs: [Slab] = []
    var sinks: RowStore
    var window: RowStore

    /// A layer that has no rows yet.
    ///
    /// - Parameters:
    ///   - held: which tokens it will hold. The lists of `listed` are those of the first rows to come.
    ///   - skippedTokens: how many tokens of the cache come before the first that it will hold; 0 unless `held` is
    ///     `last`.
    public init(shape: BlockShape, index: Int, plan: LayerPlan, held: HeldTokens = .all, skippedTokens: Int = 0) {
        precondition(skippedTokens == 0 || held == .last, "only a layer of the last tokens skips some")
        precondition(held.beginsWithFirst(plan.sinks), "only the cache's first tokens can be sinks")
        self.shape = shape
        self.plan = plan
        self.index = index
        extent = LayerExtent(first: skippedTokens, end: skippedTokens, blockEnd: 0, blockLength: shape.blockLength)
        tokenCount = skippedTokens
        self.held = held
        state = []
        coders = BlockCoder.coders(for: plan, shape: shape)
        pageOffsets = coders.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1.blockByteCount) }
        sinks = RowStore(geometry: plan.geometry, elementType: shape.elementType, limit: plan.sinks)
        window = RowStore(
            geometry: plan.geometry,
            elementType: shape.elementType,
            limit: shape.residualWindow + shape.blockLength
        )
    }

    /// What a layer of a file, or of another's memory, holds.
    package struct Content: Sendable {
        package var extent: LayerExtent
        package var tokenCount: Int
        package var held: HeldTokens
        /// For each chunk that the layer has blocks of the bytes of their pages.
        package var slabs: [SharedBytes]
        package var sinks: KVCacheLayer?
        package var window: KVCacheLayer?
        package var state: [LayerState]

        package init(
            extent: LayerExtent,
            tokenCount: Int,
            held: HeldTokens = .all,
            slabs: [SharedBytes] = [],
            sinks: KVCacheLayer? = nil,
            window: KVCacheLayer? = nil,
            state: [LayerState] = []
        ) {
            self.extent = extent
            self.tokenCount = tokenCount
            self.held = held
            self.slabs = slabs
            self.sinks = sinks
            self.window = window
            self.state = state
        }
    }

    /// A layer of the same plan whose rows lie in a file or in another's memory.
    package func holding(_ content: Content) -> CompressedLayer {
        var layer = self
        layer.extent = content.extent
        layer.tokenCount = content.tokenCount
        layer.held = content.held
        layer.state = content.state
        let chunks = content.extent.chunks
        precondition(content.slabs.count == chunks.count, "every chunk needs its slab")
        layer.slabs = zip(chunks, content.slabs).map { chunk, bytes in
            precondition(bytes.count == layer.slabByteCount(chunk: chunk), "a slab must be as long as its blocks")
            return Slab(bytes: bytes, capacity: content.extent.blocks(ofChunk: chunk).count)
        }
        layer.sinks = sinks.holding(content.sinks)
        layer.window = window.holding(content.window)
        precondition(
            layer.window.count == content.extent.windowRowCount && layer.sinks.count == sinkRowCount(content.extent),
            "window and sinks must have their rows"
        )
        return layer
    }

    public var geometry: LayerGeometry { plan.geometry }

    /// Rows of each KV head.
    public var rowCount: Int { extent.rowCount }

    /// The residual window's keys and values, or nil if it is empty.
    public var residualWindow: KVCacheLayer? { window.rows }

    /// Keys and values of the sinks that are in blocks, or nil if there are none.
    public var sinkRows: KVCacheLayer? { sinks.rows }

    /// Bytes of a block of all KV heads.
    public var blockBytes: Int { pageOffsets[geometry.kvHeads] }

    /// Bytes of all blocks.
    public var blockByteCount: Int { extent.blocks.count * blockBytes }

    /// Bytes of sinks and residual window.
    public var fullPrecisionByteCount: Int {
        (sinks.count + window.count) * geometry.valuesPerToken * shape.elementType.byteCount
    }

    /// Bytes of the slab of a chunk, as in a file; 0 if the layer has no blocks of it.
    public func slabByteCount(chunk: Int) -> Int { extent.blocks(ofChunk: chunk).count * blockBytes }

    /// The bytes of a slab as in a file, in one piece or, while the slab has room for more, head by head.
    package func slabPieces(chunk: Int) -> [SharedBytes] {
        guard extent.chunks.contains(chunk) else { return [] }
        let slab = slabs[chunk - extent.chunks.lowerBound]
        let count = extent.blocks(ofChunk: chunk).count
        if slab.capacity == count { return [slab.bytes] }
        return (0..<geometry.kvHeads).map { head in
            let start = slab.capacity * pageOffsets[head]
            return slab.bytes[start..<start + count * coders[head].blockByteCount]
        }
    }

    /// The same layer in memory of its own, shared with no file and no copy.
    ///
    /// - Throws: `CodecError` if there is no such memory.
    public func detached() throws(CodecError) -> CompressedLayer {
        var copy = self
        do {
            for (number, chunk) in extent.chunks.enumerated() {
                let slab = try Slab(blockBytes: blockBytes, capacity: extent.blocks(ofChunk: chunk).count)
                slab.fill(from: slabPieces(chunk: chunk))
                copy.slabs[number] = slab
            }
            copy.sinks = try sinks.detached()
            copy.window = try window.detached()
            copy.state = try state.map { state throws(MemoryError) in
                let bytes = try SharedBytes(byteCount: state.bytes.count) { copy in
                    unsafe copy.withUnsafeMutableBytes { to in
                        unsafe state.bytes.withUnsafeBytes { unsafe to.copyMemory(from: $0) }
                    }
                }
                return LayerState(name: state.name, bytes: bytes)
            }
        } catch {
            throw CodecError(error, layer: index)
        }
        return copy
    }

    /// Why the layer can't be cut to a prefix of the cache, or nil.
    var wholeOnlyReason: String? {
        Self.wholeOnlyReason(holdsAll: held == .all || geometry.isEmpty, hasState: !state.isEmpty, index: index)
    }

    /// Why a layer can't be cut to a prefix of its cache, or nil: Formats/snapshot.md, "Reuse".
    ///
    /// - Parameters:
    ///   - holdsAll: whether it holds the keys and values of all tokens, if any.
    ///   - index: which layer it is, or nil if that isn't known.
    package static func wholeOnlyReason(holdsAll: Bool, hasState: Bool, index: Int?) -> String? {
        let layer = index.map { "layer \($0)" } ?? "a layer"
        if !holdsAll { return "\(layer) does not hold all tokens" }
        return hasState ? "\(layer) has state that belongs to all tokens" : nil
    }

    func sinkRowCount(_ extent: LayerExtent) -> Int { extent.sinkRowCount(sinks: plan.sinks) }

    /// Memory for rows of this layer, zero at first, which `fill` writes.
    func filledRows(
        byteCount: Int,
        filling fill: (UnsafeMutableRawPointer) -> Void
    ) throws(CodecError) -> SharedBytes {
        do {
            return try SharedBytes(byteCount: byteCount) { rows in
                unsafe rows.withUnsafeMutableBytes { bytes in
                    guard let base = bytes.baseAddress else { return }
                    unsafe fill(base)
                }
            }
        } catch {
            throw CodecError(error, layer: index)
        }
    }

    /// The bytes of a block.
    package func block(_ block: Int, head: Int) -> SharedBytes {
        precondition(extent.blocks.contains(block), "there is no such block")
        let position = slabPosition(ofBlock: block)
        let slab = slabs[position.slab]
        let start = slab.capacity * pageOffsets[head] + position.number * coders[head].blockByteCount
        return slab.bytes[start..<start + coders[head].blockByteCount]
    }

    /// Which slab a block is in, and which of a page's blocks it is.
    func slabPosition(ofBlock block: Int) -> (slab: Int, number: Int) {
        let perPage = shape.blocksPerPage
        let firstBlock = extent.first / shape.blockLength
        let chunk = block / perPage
        return (chunk - firstBlock / perPage, block - max(chunk * perPage, firstBlock))
    }
}
