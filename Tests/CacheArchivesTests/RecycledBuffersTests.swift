import ByteStorage
import TestSupport
import Testing

@testable import CacheArchives

@Suite("Buffers that are used again")
struct RecycledBuffersTests {
    private func address(of buffer: AlignedBuffer) -> UInt {
        buffer.withUnsafeMutableBytes { UInt(bitPattern: $0.baseAddress) }
    }

    @Test("A kept buffer comes back once nobody refers to it, for the same size only")
    func reuse() throws {
        let memory = RecycledBuffers()
        var first: AlignedBuffer? = try memory.buffer(uninitializedByteCount: 100)
        let known = try address(of: #require(first))
        memory.keep([try #require(first)])
        let second = try memory.buffer(uninitializedByteCount: 100)
        #expect(second !== first, "it is still referred to")
        first = nil
        let other = try memory.buffer(uninitializedByteCount: 101)
        #expect(address(of: other) != known)
        let third = try memory.buffer(uninitializedByteCount: 100)
        #expect(address(of: third) == known)
        let fourth = try memory.buffer(uninitializedByteCount: 100)
        #expect(address(of: fourth) != known, "it was given away")
        withExtendedLifetime((second, third)) {}
    }

    @Test("Bytes that are shared keep their buffer")
    func shared() throws {
        let memory = RecycledBuffers()
        func make() throws -> SharedBytes {
            let buffer = try memory.buffer(uninitializedByteCount: 8)
            buffer.withUnsafeMutableBytes { $0.copyBytes(from: [1, 2, 3, 4, 5, 6, 7, 8]) }
            memory.keep([buffer])
            return buffer.shared
        }
        let bytes = try make()
        let next = try memory.buffer(uninitializedByteCount: 8)
        next.withUnsafeMutableBytes { $0.copyBytes(from: [UInt8](repeating: 0, count: 8)) }
        #expect(bytes.array == [1, 2, 3, 4, 5, 6, 7, 8])
    }
}
