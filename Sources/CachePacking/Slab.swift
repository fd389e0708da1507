internal import ByteStorage

/// The pages of one layer and 256 tokens, KV head by KV head: Formats/snapshot.md, "How a cache is cut".
///
/// In memory a slab that still grows has room for full pages; in a file its pages are as long as their blocks.
struct Slab: Sendable {
    /// Memory that this slab may write to, shared with copies of it.
    private var buffer: AlignedBuffer?
    private let fixedBytes: SharedBytes?
    /// Blocks that each page has room for.
    let capacity: Int

    /// A slab in memory of its own, zero at first.
    init(blockBytes: Int, capacity: Int) throws(MemoryError) {
        buffer = try AlignedBuffer(byteCount: blockBytes * capacity)
        fixedBytes = nil
        self.capacity = capacity
    }

    /// A slab that lies in a file or in another's memory and can't grow.
    init(bytes: SharedBytes, capacity: Int) {
        buffer = nil
        fixedBytes = bytes
        self.capacity = capacity
    }

    var bytes: SharedBytes {
        if let fixedBytes { return fixedBytes }
        // Written to again only where blocks aren't yet, or when nobody else refers to it: see isWritable.
        if let buffer { return unsafe buffer.shared }
        preconditionFailure("a slab has bytes")
    }

    /// Writes pieces one after another.
    func fill(from pieces: [SharedBytes]) {
        var offset = 0
        for piece in pieces {
            buffer?.copy(piece, at: offset)
            offset += piece.count
        }
    }

    /// Whether nobody else sees what is written.
    mutating func isWritable() -> Bool { buffer != nil && isKnownUniquelyReferenced(&buffer) }

    /// Lends the slab's memory for writing blocks that nobody reads yet; concurrent callers write to different pages.
    func withUnsafeMutableBytes<Result>(_ body: (UnsafeMutableRawBufferPointer) -> Result) -> Result {
        guard let buffer else { preconditionFailure("a slab that lies in a file isn't written to") }
        return unsafe buffer.withUnsafeMutableBytes(body)
    }
}
