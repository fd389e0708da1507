/// A map from byte strings to token ids.
///
/// Swift's `String` is no key for tokens: vocabularies hold different tokens that are canonically equivalent, like
/// `é` composed and decomposed. The keys lie one behind the other in one array, so that 100,000s of them cost no
/// allocation each. The hash is seeded by the process: a file can't be made to collide.
struct ByteTable: Sendable {
    /// What belongs to a key, in one place: with many keys nearly every look into memory costs more than the hash.
    private struct Entry {
        let start: Int
        let count: Int32
        let id: Int32

        var place: Range<Int> { start..<start + Int(count) }
    }

    /// A place of the hash table: an entry, or -1, and the upper half of its key's hash.
    private struct Slot {
        var entry: Int32 = -1
        var mark: UInt32 = 0
    }

    private var keys: [UInt8] = []
    private var entries: [Entry] = []
    /// A power of two.
    private var slots: [Slot]
    /// The length of the longest key.
    private(set) var longestKey = 0

    init(capacity: Int) {
        var size = 16
        while Self.isFull(size, count: capacity) { size *= 2 }
        slots = [Slot](repeating: Slot(), count: size)
        entries.reserveCapacity(capacity)
    }

    /// Whether a hash table would have so many entries that looking for places takes long.
    private static func isFull(_ size: Int, count: Int) -> Bool { count > size / 4 * 3 }

    var count: Int { entries.count }

    func key(at entry: Int) -> ArraySlice<UInt8> { keys[entries[entry].place] }

    subscript(key: Span<UInt8>) -> Int32? { entry(of: key).map { entries[$0].id } }

    func id(at entry: Int) -> Int32 { entries[entry].id }

    /// The entry of a key.
    ///
    /// - Parameter guess: an entry that is looked at first, which is quicker where it is the one.
    func entry(of key: Span<UInt8>, guess: Int = -1) -> Int? {
        if entries.indices.contains(guess), isKey(guess, key) { return guess }
        let entry = slots[find(key).place].entry
        return entry < 0 ? nil : Int(entry)
    }

    subscript(key: [UInt8]) -> Int32? { self[key.span] }

    /// Adds the key that `append` appends to an array, unless it is there already.
    ///
    /// - Precondition: A key is shorter than 2 GiB.
    /// - Returns: whether it was new.
    mutating func insert(id: Int32, _ append: (inout [UInt8]) -> Void) -> Bool {
        let start = keys.count
        append(&keys)
        if Self.isFull(slots.count, count: count + 1) { grow() }
        let found = find(keys.span.extracting(start..<keys.count))
        guard slots[found.place].entry < 0 else {
            keys.removeSubrange(start...)
            return false
        }
        slots[found.place] = Slot(entry: Int32(count), mark: found.mark)
        longestKey = max(longestKey, keys.count - start)
        entries.append(Entry(start: start, count: Int32(keys.count - start), id: id))
        return true
    }

    /// The slot that holds the key, or the empty one where it belongs.
    private func find(_ key: Span<UInt8>) -> (place: Int, mark: UInt32) {
        var hasher = Hasher()
        unsafe key.withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
        let hash = hasher.finalize()
        let mark = UInt32(truncatingIfNeeded: hash >> 32)
        let mask = slots.count - 1
        var place = hash & mask
        while true {
            let slot = slots[place]
            if slot.entry < 0 || slot.mark == mark && isKey(Int(slot.entry), key) { return (place, mark) }
            place = (place + 1) & mask
        }
    }

    private func isKey(_ entry: Int, _ key: Span<UInt8>) -> Bool {
        let entry = entries[entry]
        guard Int(entry.count) == key.count else { return false }
        for index in key.indices where keys[entry.start + index] != key[index] { return false }
        return true
    }

    private mutating func grow() {
        slots = [Slot](repeating: Slot(), count: slots.count * 2)
        for (index, entry) in entries.enumerated() {
            let found = find(keys.span.extracting(entry.place))
            slots[found.place] = Slot(entry: Int32(index), mark: found.mark)
        }
    }
}
