import CThinkKernels
import ComputeRuntime
import Testing

@Suite("CRC-32C")
struct ChecksumTests {
    static let sets = [KernelSet.scalar] + KernelSet.vectorSets

    @Test("The check values of the catalogues", arguments: sets)
    func checkValues(set: KernelSet) {
        #expect(set.kernels.crc32c(0, Array("123456789".utf8), 9) == 0xE306_9283)
        // RFC 3720, B.4.
        #expect(set.kernels.crc32c(0, [UInt8](repeating: 0, count: 32), 32) == 0x8A91_36AA)
        #expect(set.kernels.crc32c(0, [UInt8](repeating: 0xFF, count: 32), 32) == 0x62A8_AB43)
        #expect(set.kernels.crc32c(0, [UInt8](0..<32), 32) == 0x46DD_794E)
    }

    @Test("Any count, start and checksum so far, against one bit at a time", arguments: sets)
    func matchesDefinition(set: KernelSet) {
        var generator = SplitMix64(seed: 7)
        let bytes = (0..<8000).map { _ in UInt8.random(in: 0...255, using: &generator) }
        // Below, at and above what the interleaved parts take: 3 x 128 and 3 x 2048.
        for count in sampleCounts + [383, 384, 385, 767, 768, 6143, 6144, 6145, 7000] {
            for start in [0, 1, 3] {
                let slice = Array(bytes[start..<start + count])
                let checksum = bytes.withUnsafeBytes { set.kernels.crc32c(0x1234_5678, $0.baseAddress! + start, count) }
                #expect(checksum == reference(0x1234_5678, slice), "\(count) from \(start)")
            }
        }
    }

    @Test("Parts in sequence give the checksum of the whole", arguments: sets)
    func continues(set: KernelSet) {
        let bytes = (0..<20_000).map { UInt8(truncatingIfNeeded: $0 * $0 >> 3) }
        let whole = set.kernels.crc32c(0, bytes, bytes.count)
        for cut in [0, 1, 100, 6144, 13_001, 20_000] {
            let first = set.kernels.crc32c(0, bytes, cut)
            #expect(set.kernels.crc32c(first, Array(bytes[cut...]), bytes.count - cut) == whole)
        }
    }

    private func reference(_ start: UInt32, _ bytes: [UInt8]) -> UInt32 {
        var remainder = ~start
        for byte in bytes {
            remainder ^= UInt32(byte)
            for _ in 0..<8 { remainder = remainder & 1 == 0 ? remainder >> 1 : remainder >> 1 ^ 0x82F6_3B78 }
        }
        return ~remainder
    }
}
