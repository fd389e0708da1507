internal import ByteStorage
internal import Synchronization

/// Buffers that are used again once nobody else refers to them.
///
/// The system clears new memory, which takes as long as a fifth of restoring into it.
final class RecycledBuffers: Sendable {
    private let kept = Mutex<[AlignedBuffer]>([])

    /// Buffers of bytes that the caller writes before anybody reads them: those that were kept, as far as nobody else
    /// refers to them and they are as long, and new ones. Others that were kept are let go before.
    ///
    /// - Throws: `MemoryError` if there is no such memory.
    @unsafe
    func buffers(uninitializedByteCounts byteCounts: [Int]) throws(MemoryError) -> [AlignedBuffer] {
        var free = kept.withLock { kept in
            defer { kept = [] }
            return kept
        }
        var result = byteCounts.map { byteCount -> AlignedBuffer? in
            for index in free.indices where free[index].byteCount == byteCount {
                if isKnownUniquelyReferenced(&free[index]) { return free.remove(at: index) }
            }
            return nil
        }
        free = []
        for (index, byteCount) in byteCounts.enumerated() where result[index] == nil {
            result[index] = unsafe try AlignedBuffer(uninitializedByteCount: byteCount)
        }
        return result.compactMap { $0 }
    }

    /// Keeps buffers, in place of those that were kept before.
    func keep(_ buffers: [AlignedBuffer]) {
        // What was kept is let go after the lock.
        withExtendedLifetime(
            kept.withLock { kept in
                defer { kept = buffers }
                return kept
            }
        ) {}
    }
}
