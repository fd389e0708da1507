import ByteStorage
import Testing

@Suite("Memory that can't be had")
struct MemoryErrorTests {
    private static let tooMany = 1 << 60

    @Test func isAnErrorOfABuffer() throws {
        let error = #expect(throws: MemoryError.self) { _ = try AlignedBuffer(byteCount: Self.tooMany) }
        #expect(error == MemoryError(byteCount: Self.tooMany))
        #expect(
            error?.description
                == "needs 1152921504606846976 bytes of memory that can't be had; end other programs, raise "
                + "the limit (ulimit -v, the container's), or pass a smaller input"
        )
        #expect(MemoryError(byteCount: nil).description.hasPrefix("needs more memory than can be had; "))
    }

    @Test func canBeAskedForBefore() throws {
        #expect(throws: MemoryError(byteCount: Self.tooMany)) {
            try AlignedBuffer.checkAvailability(byteCount: Self.tooMany)
        }
        try AlignedBuffer.checkAvailability(byteCount: 0)
        try AlignedBuffer.checkAvailability(byteCount: 1 << 20)
    }
}
