import TestSupport
import Testing
import ThinkCompress

@Suite struct KernelsTests {
    /// The vector of Formats/snapshot.md, "Conventions".
    private static let vector = Array("123456789".utf8)
    private static let vectorChecksum: UInt32 = 0xE306_9283

    @Test("has the checksum of the specification")
    func checksumOfVector() {
        #expect(Kernels.checksum(SharedBytes(Self.vector).span) == Self.vectorChecksum)
        #expect(Kernels.checksum(SharedBytes([]).span) == 0)
    }

    @Test("continues a checksum at any place", arguments: 0...9)
    func continuesChecksum(place: Int) {
        let bytes = SharedBytes(Self.vector)
        let first = Kernels.checksum(bytes[0..<place].span)
        #expect(Kernels.checksum(bytes[place..<9].span, continuing: first) == Self.vectorChecksum)
    }

    @Test("has the same checksum for bytes at any address", arguments: 0..<9)
    func checksumOfUnalignedBytes(start: Int) {
        let padded = SharedBytes([UInt8](repeating: 1, count: start) + Self.vector)
        #expect(Kernels.checksum(padded[start..<padded.count].span) == Self.vectorChecksum)
    }
}
