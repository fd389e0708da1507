internal import ByteStorage
internal import CThinkKernels
internal import KVCacheModel

/// Rows of a layer in full precision, keys and values: its sinks, or its residual window.
struct RowStore: Sendable {
    private let geometry: LayerGeometry
    private let elementType: ElementType
    /// Rows that may ever be in it.
    private let limit: Int
    private(set) var count = 0
    /// Memory for `capacity` rows, keys and then values, head after head; nil where the rows lie in a file.
    private var buffer: AlignedBuffer?
    /// Rows that the buffer has room for.
    private var capacity = 0
    /// The rows in a file or in another's memory.
    private var fixed: KVCacheLayer?

    /// An empty store.
    init(geometry: LayerGeometry, elementType: ElementType, limit: Int) {
        self.geometry = geometry
        self.elementType = elementType
        self.limit = limit
    }

    /// The same store with rows that lie in a file or in another's memory.
    func holding(_ layer: KVCacheLayer?) -> RowStore {
        var store = RowStore(geometry: geometry, elementType: elementType, limit: limit)
        store.fixed = layer
        store.count = layer?.keys.tokens ?? 0
        return store
    }

    /// Keys or values, or nil if the store is empty.
    subscript(part: CachePart) -> KVTensor? {
        guard count > 0 else { return nil }
        if let fixed { return fixed[part][tokens: 0..<count] }
        guard let buffer else { return nil }
        let start = offset(part, head: 0, capacity: capacity)
        return KVTensor(
            // Written to again only when nobody else refers to it: see slide.
            bytes: unsafe buffer.shared[start..<buffer.byteCount],
            elementType: elementType,
            heads: geometry.kvHeads,
            tokens: count,
            headDimension: geometry.dimension(part),
            headStride: capacity * rowBytes(part)
        )
    }

    /// Keys and values, or nil if the store is empty.
    var rows: KVCacheLayer? {
        guard let keys = self[.keys], let values = self[.values] else { return nil }
        return KVCacheLayer(keys: keys, values: values)
    }

    /// Makes room for so many rows in all, which then can't fail as long as nobody copies the store.
    mutating func makeRoom(for rows: Int) throws(MemoryError) {
        if rows > 0 { try slide(from: 0, count: count, room: max(rows, count)) }
    }

    /// Appends the rows `range` of a layer and drops the oldest `dropped` of old and new together.
    ///
    /// - Throws: `MemoryError` if there is no room for them; the store is as it was then.
    mutating func append(_ source: KVCacheLayer, rows range: Range<Int>, dropping dropped: Int = 0) throws(MemoryError)
    {
        let oldStart = min(dropped, count)
        let newStart = range.lowerBound + dropped - oldStart
        let kept = count - oldStart
        let total = kept + range.upperBound - newStart
        precondition(newStart <= range.upperBound && total <= limit, "more rows than may ever be here")
        try slide(from: oldStart, count: kept, room: total)
        guard let buffer else { return }
        unsafe buffer.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return }
            for part in CachePart.allCases {
                for head in 0..<geometry.kvHeads {
                    unsafe source[part].withRows(head: head, from: newStart) { rows in
                        unsafe BlockCoder.copyRows(
                            rows,
                            count: range.upperBound - newStart,
                            headDimension: geometry.dimension(part),
                            to: tck_mutable_rows(
                                bytes: base + offset(part, head: head, capacity: capacity) + kept * rowBytes(part),
                                token_stride: rowBytes(part),
                                type: elementType.kernelType
                            )
                        )
                    }
                }
            }
        }
        count = total
    }

    /// The same rows in memory of their own.
    func detached() throws(MemoryError) -> RowStore {
        var copy = holding(nil)
        if let rows { try copy.append(rows, rows: 0..<count) }
        return copy
    }

    /// Drops the newest rows.
    mutating func truncate(to count: Int) {
        self.count = min(self.count, count)
    }

    private func rowBytes(_ part: CachePart) -> Int { geometry.dimension(part) * elementType.byteCount }

    private func offset(_ part: CachePart, head: Int, capacity: Int) -> Int {
        let before = part == .keys ? 0 : geometry.kvHeads * rowBytes(.keys)
        return capacity * (before + head * rowBytes(part))
    }

    /// Moves rows `start...` to the front, into memory that nobody else sees and that has room for `room` rows.
    private mutating func slide(from start: Int, count kept: Int, room: Int) throws(MemoryError) {
        if buffer != nil && capacity >= room && isKnownUniquelyReferenced(&buffer) {
            guard let buffer, start > 0 else { return }
            unsafe buffer.withUnsafeMutableBytes { bytes in
                guard let base = bytes.baseAddress else { return }
                for part in CachePart.allCases {
                    let rowBytes = rowBytes(part)
                    for head in 0..<geometry.kvHeads {
                        let rows = unsafe base + offset(part, head: head, capacity: capacity)
                        unsafe rows.copyMemory(from: rows + start * rowBytes, byteCount: kept * rowBytes)
                    }
                }
            }
            return
        }
        // Grows with what is in it: a window may be allowed to be far longer than its cache.
        let larger = buffer == nil ? room : min(max(room, 2 * capacity), limit)
        let copy = try AlignedBuffer(byteCount: larger * geometry.valuesPerToken * elementType.byteCount)
        unsafe copy.withUnsafeMutableBytes { bytes in
            guard let base = bytes.baseAddress else { return }
            for part in CachePart.allCases {
                guard let source = self[part] else { continue }
                let rowBytes = rowBytes(part)
                for head in 0..<geometry.kvHeads {
                    unsafe source.withRows(head: head, from: start) { rows in
                        guard let from = unsafe rows.bytes else { return }
                        for row in 0..<kept {
                            unsafe (base + offset(part, head: head, capacity: larger) + row * rowBytes)
                                .copyMemory(from: from + row * rows.token_stride, byteCount: rowBytes)
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
