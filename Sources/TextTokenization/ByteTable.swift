/// A map from byte strings to token ids.
///
/// Swift's `String` is no key for tokens: vocabularies hold different tokens that are canonically equivalent, like
/// `é` composed and decomposed. The keys lie one behind the other in one array, so that 100,000s of them cost no
/// allocation each. The hash is seeded by the process: a file can't be made to collide.
struct ByteTable: Sendable {
    private var keys: [UInt8] = []
    /// Where each key ends.
    private var ends: [Int] = []
    private var ids: [Int32] = []
    /// The entry at each place of the hash table, or -1; a power of two.
    private var slots: [Int32]
    /// The length of the longest key.
    private(set) var longestKey = 0

    init(capacity: Int) {
        var size = 16
        while size < capacity * 2 { size *= 2 }
        slots = [Int32](repeating: -1, count: size)
        ends.reserveCapacity(capacity)
        ids.reserveCapacity(capacity)
    }

    var count: Int { ids.count }

    func key(at entry: Int) -> ArraySlice<UInt8> { keys[place(of: entry)] }

    subscript(key: Span<UInt8>) -> Int32? {
        let entry = slots[slot(of: key)]
        return entry < 0 ? nil : ids[Int(entry)]
    }

    subscript(key: [UInt8]) -> Int32? { self[key.span] }

    /// Adds the key that `append` appends to an array, unless it is there already.
    ///
    /// - Returns: whether it was new.
    mutating func insert(id: Int32, _ append: (inout [UInt8]) -> Void) -> Bool {
        let start = keys.count
        append(&keys)
        if (count + 1) * 2 > slots.count { grow() }
        let place = slot(of: keys.span.extracting(start..<keys.count))
        guard slots[place] < 0 else {
            keys.removeSubrange(start...)
            return false
        }
        slots[place] = Int32(count)
        longestKey = max(longestKey, keys.count - start)
        ends.append(keys.count)
        ids.append(id)
        return true
    }

    /// The slot that holds the key, or the empty one where it belongs.
    private func slot(of key: Span<UInt8>) -> Int {
        var hasher = Hasher()
        unsafe key.withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
        let mask = slots.count - 1
        var place = hasher.finalize() & mask
        while slots[place] >= 0, !isKey(Int(slots[place]), key) { place = (place + 1) & mask }
        return place
    }

    private func isKey(_ entry: Int, _ key: Span<UInt8>) -> Bool {
        let place = place(of: entry)
        guard place.count == key.count else { return false }
        for index in key.indices where keys[place.lowerBound + index] != key[index] { return false }
        return true
    }

    /// Where the key of an entry lies.
    private func place(of entry: Int) -> Range<Int> { (entry == 0 ? 0 : ends[entry - 1])..<ends[entry] }

    private mutating func grow() {
        slots = [Int32](repeating: -1, count: slots.count * 2)
        for entry in 0..<count {
            slots[slot(of: keys.span.extracting(place(of: entry)))] = Int32(entry)
        }
    }
}
