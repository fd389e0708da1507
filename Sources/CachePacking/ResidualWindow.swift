internal import ByteStorage
internal import CThinkKernels
internal import KVCacheModel

/// The newest tokens of a layer in full precision.
struct ResidualWindow: Sendable {
    private let shape: BlockShape
    private(set) var count: Int
    /// Memory for `capacity` tokens, keys and then values, head after head; nil where the window lies in a file.
    private var buffer: AlignedBuffer?
    /// Tokens that the buffer has room for.
    private var capacity = 0
    /// The window in a file, keys and values.
    private var fixed: KVCacheLayer?

    /// An empty window.
    init(shape: BlockShape) {
        self.shape = shape
        count = 0
        buffer = nil
        fixed = nil
    }

    /// A window that lies in a file or in another's memory.
    init(shape: BlockShape, layer: KVCacheLayer) {
        self.shape = shape
        count = layer.keys.tokens
        buffer = nil
        fixed = layer
    }

    /// Keys or values, or nil if the window is empty.
    subscript(part: CachePart) -> KVTensor? {
        guard count > 0 else { return nil }
        if let fixed { return fixed[part][tokens: 0..<count] }
        guard let buffer else { return nil }
        let start = offset(part, head: 0)
        return KVTensor(
            bytes: buffer.shared[start..<start + buffer.byteCount / 2],
            elementType: shape.elementType,
            heads: shape.kvHeads,
            tokens: count,
            headDimension: shape.headDimension,
            headStride: capacity * shape.rowBytes
        )
    }

    /// Makes room for appending `new`, which then can't fail as long as nobody copies the window.
    mutating func makeRoom(for new: KVCacheLayer, dropping dropped: Int) throws(MemoryError) {
        let total = count + new.keys.tokens - dropped
        if total > 0 { try slide(from: 0, count: count, room: max(total, count)) }
    }

    /// Appends tokens and drops the oldest `dropped` of old and new together.
    ///
    /// - Throws: `MemoryError` if there is no room for them; the window is as it was then.
    mutating func append(_ new: KVCacheLayer, dropping dropped: Int) throws(MemoryError) {
        let oldStart = min(dropped, count)
        let newStart = dropped - oldStart
        let kept = count - oldStart
        let total = kept + new.keys.tokens - newStart
        precondition(total <= shape.residualWindow + shape.blockLength, "a full window must be flushed")
        try slide(from: oldStart, count: kept, room: total)
        guard let buffer else { return }
        unsafe buffer.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return }
            for part in CachePart.allCases {
                let source = new[part]
                for head in 0..<shape.kvHeads {
                    unsafe source.withRows(head: head, from: newStart) { rows in
                        unsafe BlockCoder.copyRows(
                            rows,
                            count: source.tokens - newStart,
                            headDimension: shape.headDimension,
                            to: tck_mutable_rows(
                                bytes: base + offset(part, head: head) + kept * shape.rowBytes,
                                token_stride: shape.rowBytes,
                                type: shape.elementType.kernelType
                            )
                        )
                    }
                }
            }
        }
        count = total
    }

    /// The same window in memory of its own.
    func detached() throws(MemoryError) -> ResidualWindow {
        guard let keys = self[.keys], let values = self[.values] else { return ResidualWindow(shape: shape) }
        var copy = ResidualWindow(shape: shape)
        try copy.append(KVCacheLayer(keys: keys, values: values), dropping: 0)
        return copy
    }

    /// Drops the newest tokens.
    mutating func truncate(to count: Int) {
        self.count = min(self.count, count)
    }

    private func offset(_ part: CachePart, head: Int, capacity: Int? = nil) -> Int {
        ((part == .keys ? 0 : shape.kvHeads) + head) * (capacity ?? self.capacity) * shape.rowBytes
    }

    /// Moves tokens `from...` to the front, into memory that nobody else sees and that has room for `room` tokens.
    private mutating func slide(from start: Int, count kept: Int, room: Int) throws(MemoryError) {
        if buffer != nil && capacity >= room && isKnownUniquelyReferenced(&buffer) {
            guard let buffer, start > 0 else { return }
            unsafe buffer.withUnsafeMutableBytes { bytes in
                guard let base = bytes.baseAddress else { return }
                for part in CachePart.allCases {
                    for head in 0..<shape.kvHeads {
                        let rows = unsafe base + offset(part, head: head)
                        unsafe rows.copyMemory(from: rows + start * shape.rowBytes, byteCount: kept * shape.rowBytes)
                    }
                }
            }
            return
        }
        // Grows with what is in it: a window may be allowed to be far longer than its cache.
        let larger = buffer == nil ? room : min(max(room, 2 * capacity), shape.residualWindow + shape.blockLength)
        let copy = try AlignedBuffer(byteCount: 2 * shape.kvHeads * larger * shape.rowBytes)
        unsafe copy.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return }
            for part in CachePart.allCases {
                guard let source = self[part] else { continue }
                for head in 0..<shape.kvHeads {
                    unsafe source.withRows(head: head, from: start) { rows in
                        guard let from = unsafe rows.bytes else { return }
                        for row in 0..<kept {
                            unsafe (base + offset(part, head: head, capacity: larger) + row * shape.rowBytes)
                                .copyMemory(
                                    from: from + row * rows.token_stride,
                                    byteCount: shape.rowBytes
                                )
                        }
                    }
                }
            }
        }
        buffer = copy
        capacity = larger
        fixed = nil
    }
}
