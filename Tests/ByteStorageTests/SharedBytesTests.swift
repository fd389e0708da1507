import TestSupport
import Testing
import ThinkCompress

@Suite struct SharedBytesTests {
    @Test("lends ranges without copying, also of ranges")
    func ranges() {
        let bytes = SharedBytes([0, 1, 2, 3, 4, 5])
        #expect(bytes[1..<5][1..<3].array == [2, 3])
        #expect(bytes[6..<6].count == 0)
        #expect(bytes.withUnsafeBytes { $0.baseAddress } == bytes[0..<2].withUnsafeBytes { $0.baseAddress })
    }

    @Test("keeps its owner alive through a range")
    func keepsOwnerAlive() throws {
        weak var owner: AlignedBuffer?
        var part: SharedBytes?
        do {
            let buffer = try AlignedBuffer(byteCount: 8)
            owner = buffer
            part = buffer.shared[2..<4]
        }
        #expect(owner != nil)
        #expect(part?.array == [0, 0])
        part = nil
        #expect(owner == nil)
    }

    @Test("compares bytes by value", arguments: [([1, 2], true), ([1, 3], false), ([1], false), ([1, 2, 3], false)])
    func compares(other: [UInt8], areEqual: Bool) {
        #expect(SharedBytes([1, 2]).hasSameBytes(as: SharedBytes(other)) == areEqual)
    }

    @Test("refuses a range outside of the bytes")
    func refusesOutside() async {
        let end = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            _ = SharedBytes([1, 2])[1..<3]
        }
        #expect(ProgramEnd.says("range outside of the bytes", end?.standardErrorContent))
    }

    @Test("gives buffers zeros at aligned addresses", arguments: [0, 1, 63, 64, 1000, 5_000_001])
    func buffers(count: Int) throws {
        let buffer = try AlignedBuffer(byteCount: count)
        #expect(buffer.shared.array == [UInt8](repeating: 0, count: count))
        let address = buffer.shared.withUnsafeBytes { UInt(bitPattern: $0.baseAddress) }
        #expect(address % UInt(AlignedBuffer.alignment) == 0)
    }

    @Test("holds what filled it, in aligned memory that is zero at first", arguments: [0, 3, 100])
    func fills(count: Int) throws {
        let bytes = try SharedBytes(byteCount: count) { span in
            for offset in stride(from: 0, to: count, by: 2) {
                span.storeBytes(of: 7, toByteOffset: offset, as: UInt8.self)
            }
        }
        #expect(bytes.array == (0..<count).map { $0 % 2 == 0 ? 7 : 0 })
        #expect(bytes.withUnsafeBytes { UInt(bitPattern: $0.baseAddress) } % 64 == 0)
    }

    @Test("copies words, little-endian")
    func words() throws {
        #expect(try SharedBytes(words: [1, 0xAABB_CCDD]).array == [1, 0, 0, 0, 0xDD, 0xCC, 0xBB, 0xAA])
    }

    @Test("copies bytes into a buffer at an offset")
    func copies() throws {
        let buffer = try AlignedBuffer(byteCount: 5)
        buffer.copy(SharedBytes([7, 8]), at: 2)
        buffer.copy(SharedBytes([]), at: 5)
        #expect(buffer.shared.array == [0, 0, 7, 8, 0])
    }
}
