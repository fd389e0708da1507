import ByteStorage
import TestSupport
import Testing

@testable import CacheArchives

@Suite("Buffers that are used again")
struct RecycledBuffersTests {
    private func address(of buffer: AlignedBuffer) -> UInt {
        buffer.withUnsafeMutableBytes { UInt(bitPattern: $0.baseAddress) }
    }

    @Test("Kept buffers come back once nobody refers to them, for the same size only")
    func reuse() throws {
        let memory = RecycledBuffers()
        var known: [UInt] = []
        func keep(_ byteCounts: [Int]) throws -> [AlignedBuffer] {
            let buffers = try memory.buffers(uninitializedByteCounts: byteCounts)
            known = buffers.map(address)
            memory.keep(buffers)
            return buffers
        }
        _ = try keep([100, 100, 200])
        let second = try memory.buffers(uninitializedByteCounts: [200, 100, 100, 100])
        #expect(second.map(\.byteCount) == [200, 100, 100, 100])
        #expect(second.prefix(3).map(address) == [known[2], known[0], known[1]])
        #expect(Set(second.map(address)).count == 4)
        let held = try keep([100, 300])
        let third = try memory.buffers(uninitializedByteCounts: [100, 300])
        #expect(Set(third.map(address)).isDisjoint(with: known), "they are still referred to")
        withExtendedLifetime(held) {}
    }

    @Test("What is not used again is let go")
    func release() throws {
        let memory = RecycledBuffers()
        weak var kept: AlignedBuffer?
        do {
            let buffers = try memory.buffers(uninitializedByteCounts: [8])
            kept = buffers[0]
            memory.keep(buffers)
        }
        #expect(kept != nil)
        _ = try memory.buffers(uninitializedByteCounts: [9])
        #expect(kept == nil)
    }

    @Test("Bytes that are shared keep their buffer")
    func shared() throws {
        let memory = RecycledBuffers()
        func make() throws -> SharedBytes {
            let buffer = try memory.buffers(uninitializedByteCounts: [8])[0]
            buffer.withUnsafeMutableBytes { $0.copyBytes(from: [1, 2, 3, 4, 5, 6, 7, 8]) }
            memory.keep([buffer])
            return buffer.shared
        }
        let bytes = try make()
        let next = try memory.buffers(uninitializedByteCounts: [8])[0]
        next.withUnsafeMutableBytes { $0.copyBytes(from: [UInt8](repeating: 0, count: 8)) }
        #expect(bytes.array == [1, 2, 3, 4, 5, 6, 7, 8])
    }
}
