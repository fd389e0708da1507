import CThinkKernels
import Testing

@Suite("Full-precision key kernels")
struct FullKeyTests {
    @Test("Scalar packs and restores in channel-major order")
    func scalarPacks() {
        let rows = SampleRows(.ordinary, type: .float32, tokens: 5, headDimension: 7, seed: 2)
        let channels: [UInt16] = [6, 0, 3]
        let packed = pack(rows, channels: channels, with: .scalar)
        let expected = channels.flatMap { channel in (0..<5).map { rows.value(token: $0, channel: Int(channel)) } }
        #expect(ElementType.float32.decode(packed.bytes) == expected)

        let restored = restore(packed, as: .float32, rows: rows, channels: channels, to: .float32, with: .scalar)
        for token in 0..<5 {
            for channel in 0..<7 {
                let at = (token * 7 + channel) * 4
                if channels.contains(UInt16(channel)) {
                    let value = ElementType.float32.decode(Array(restored.bytes[at..<at + 4]))[0]
                    #expect(value == rows.value(token: token, channel: channel))
                } else {
                    #expect(restored.bytes[at..<at + 4].allSatisfy { $0 == GuardedBytes.filler })
                }
            }
        }
    }

    @Test("Vector sets pack and restore as scalar", arguments: KernelSet.vectorSets, ElementType.allCases)
    func packs(set: KernelSet, type: ElementType) {
        for (number, headDimension) in sampleHeadDimensions.enumerated() {
            for (index, tokens) in sampleCounts.dropLast().enumerated() {
                let seed = number * 31 + index
                let rows = SampleRows(.ordinary, type: type, tokens: tokens, headDimension: headDimension, seed: seed)
                let channels = sampleChannels(headDimension: headDimension, seed: seed)
                let packed = pack(rows, channels: channels, with: .scalar)
                #expect(pack(rows, channels: channels, with: set) == packed, "\(tokens) x \(headDimension)")

                let target = ElementType.allCases[seed % 3]
                let restored = [KernelSet.scalar, set].map {
                    restore(packed, as: type, rows: rows, channels: channels, to: target, with: $0)
                }
                #expect(restored[1].marginsAreIntact)
                #expect(restored[0] == restored[1], "\(tokens) x \(headDimension) to \(target)")
            }
        }
    }

    @Test("NaN payloads stay where the types are equal", arguments: [KernelSet.scalar] + KernelSet.vectorSets)
    func keepsPayloads(set: KernelSet) {
        let channels = (0..<64).map(UInt16.init)
        let numbers = (0..<32 * 64).map { UInt16(0x7C01 + $0 % 0x3FF) }
        let source = numbers.flatMap { [UInt8($0 & 0xFF), UInt8($0 >> 8)] }
        var restored = GuardedBytes(count: source.count)
        restored.withMutablePointer { bytes in
            withChannels(channels) {
                let rows = tck_mutable_rows(bytes: bytes, token_stride: 128, type: TCK_FLOAT16)
                set.kernels.unpack_full_keys(TCK_FLOAT16, source, 32, $0, rows)
            }
        }
        let expected = (0..<32).flatMap { token in (0..<64).map { numbers[$0 * 32 + token] } }
        #expect(restored.halves == expected)
    }

    private func pack(_ rows: SampleRows, channels: [UInt16], with set: KernelSet) -> GuardedBytes {
        var packed = GuardedBytes(count: channels.count * rows.tokens * rows.type.byteCount, shift: 3)
        packed.withMutablePointer { bytes in
            rows.withRows { source in
                withChannels(channels) { set.kernels.pack_full_keys(source, rows.tokens, $0, bytes) }
            }
        }
        return packed
    }

    private func restore(
        _ packed: GuardedBytes,
        as type: ElementType,
        rows: SampleRows,
        channels: [UInt16],
        to target: ElementType,
        with set: KernelSet
    ) -> GuardedBytes {
        let stride = rows.headDimension * target.byteCount
        var restored = GuardedBytes(count: stride * rows.tokens, shift: 5)
        restored.withMutablePointer { bytes in
            packed.withPointer { source in
                withChannels(channels) {
                    let rows = (
                        tokens: rows.tokens, to: tck_mutable_rows(bytes: bytes, token_stride: stride, type: target.tag)
                    )
                    set.kernels.unpack_full_keys(type.tag, source, rows.tokens, $0, rows.to)
                }
            }
        }
        return restored
    }
}
