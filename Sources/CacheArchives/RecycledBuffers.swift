internal import ByteStorage
internal import Synchronization

/// Buffers that are used again once nobody else refers to them.
///
/// The system clears new memory, which takes as long as a fifth of restoring into it.
final class RecycledBuffers: Sendable {
    private let kept = Mutex<[AlignedBuffer]>([])

    /// A buffer of bytes that the caller writes before anybody reads them: one that was kept, or a new one.
    ///
    /// - Throws: `MemoryError` if there is no such memory.
    @unsafe
    func buffer(uninitializedByteCount byteCount: Int) throws(MemoryError) -> AlignedBuffer {
        let free = kept.withLock { kept -> AlignedBuffer? in
            for index in kept.indices where kept[index].byteCount == byteCount {
                if isKnownUniquelyReferenced(&kept[index]) { return kept.remove(at: index) }
            }
            return nil
        }
        if let free { return free }
        return unsafe try AlignedBuffer(uninitializedByteCount: byteCount)
    }

    /// Keeps buffers, in place of those that were kept before.
    func keep(_ buffers: [AlignedBuffer]) {
        kept.withLock { $0 = buffers }
    }
}
