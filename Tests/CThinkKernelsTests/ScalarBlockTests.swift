import CThinkKernels
import ComputeRuntime
import TestSupport
import Testing

@Suite("Block kernels of scalar")
struct ScalarBlockTests {
    @Test("The example of Formats/kivi.md has its bytes")
    func packsExample() {
        let values = [0, 1, 2, 3.1] + [Float](repeating: 0, count: 28)
        let rows = SampleRows(values, type: .float32, tokens: 32, headDimension: 1)
        let kind = BlockKind.keys(channels: [0])
        let block = kind.packed(rows, width: 2, with: .scalar)
        #expect(block.isQuantized)
        #expect(block.scales.halves == [0x3C22, 0, 0, 0])
        #expect(block.minima.halves == [0, 0, 0, 0])
        var codes = [UInt8](repeating: 0, count: 64)
        (codes[4], codes[8], codes[12]) = (1, 2, 3)
        #expect(block.codes.bytes == codes)
        let restored = kind.restored(block, tokens: 32, headDimension: 1, width: 2, as: .float32, with: .scalar)
        #expect(ElementType.float32.decode(restored.bytes).prefix(5) == [0, 1.033203125, 2.06640625, 3.099609375, 0])
    }

    @Test(
        "Keys are quantized per channel and lie where the format says",
        arguments: sampleWidths,
        [32, 64, 128]
    )
    func packsKeys(width: UInt32, tokens: Int) {
        for (seed, headDimension) in [1, 7, 40, 128].enumerated() {
            let rows = SampleRows(.ordinary, type: .float16, tokens: tokens, headDimension: headDimension, seed: seed)
            let channels = sampleChannels(headDimension: headDimension, seed: seed)
            let kind = BlockKind.keys(channels: channels)
            let block = kind.packed(rows, width: width, with: .scalar)
            let restored = kind.restored(
                block,
                tokens: tokens,
                headDimension: headDimension,
                width: width,
                as: .float32,
                with: .scalar
            )
            let restoredValues = ElementType.float32.decode(restored.bytes)
            var codes = [UInt8](repeating: 0, count: block.codes.bytes.count)
            for (index, channel) in channels.enumerated() {
                let numbers = (0..<tokens).map { rows.value(token: $0, channel: Int(channel)) }
                let group = ReferenceGroup(numbers, bits: Int(width))
                #expect(value(ofHalf: block.scales.halves[index]) == group.scale)
                #expect(value(ofHalf: block.minima.halves[index]) == group.minimum)
                for token in 0..<tokens {
                    let place = CodePlace.key(token: token, index: index, count: channels.count, bits: Int(width))
                    place.put(group.code(numbers[token]), into: &codes)
                    if restoredValues[token * headDimension + Int(channel)] != group.restored(numbers[token]) {
                        Issue.record("token \(token), channel \(channel)")
                    }
                }
            }
            #expect(block.codes.bytes == codes)
            #expect(block.scales.halves[channels.count...].allSatisfy { $0 == 0 })
        }
    }

    @Test(
        "Values are quantized per token and group and lie where the format says",
        arguments: sampleWidths,
        [32, 64, 128]
    )
    func packsValues(width: UInt32, group: Int) {
        for (seed, headDimension) in [1, 7, 80, 128].enumerated() {
            let tokens = 32
            let groups = (headDimension + group - 1) / group
            let rows = SampleRows(.ordinary, type: .bfloat16, tokens: tokens, headDimension: headDimension, seed: seed)
            let kind = BlockKind.values(group: group)
            let block = kind.packed(rows, width: width, with: .scalar)
            let restored = kind.restored(
                block,
                tokens: tokens,
                headDimension: headDimension,
                width: width,
                as: .float32,
                with: .scalar
            )
            let restoredValues = ElementType.float32.decode(restored.bytes)
            var codes = [UInt8](repeating: 0, count: block.codes.bytes.count)
            let (scales, minima) = (block.scales.halves, block.minima.halves)
            for token in 0..<tokens {
                for number in 0..<groups {
                    let channels = Array(number * group..<min((number + 1) * group, headDimension))
                    let numbers = channels.map { rows.value(token: token, channel: $0) }
                    let reference = ReferenceGroup(numbers, bits: Int(width))
                    let parameter = (token / 4 * groups + number) * 4 + token % 4
                    #expect(value(ofHalf: scales[parameter]) == reference.scale)
                    #expect(value(ofHalf: minima[parameter]) == reference.minimum)
                    for (index, channel) in channels.enumerated() {
                        let place = CodePlace.value(
                            token: token,
                            channel: channel,
                            headDimension: headDimension,
                            bits: Int(width)
                        )
                        place.put(reference.code(numbers[index]), into: &codes)
                        if restoredValues[token * headDimension + channel] != reference.restored(numbers[index]) {
                            Issue.record("token \(token), channel \(channel)")
                        }
                    }
                }
            }
            #expect(block.codes.bytes == codes)
        }
    }

    @Test("A constant group has scale and codes 0 and comes back", arguments: sampleWidths)
    func packsConstants(width: UInt32) {
        let rows = SampleRows([Float](repeating: -1.5, count: 32 * 16), type: .float16, tokens: 32, headDimension: 16)
        for kind in [BlockKind.keys(channels: [3, 0, 9]), .values(group: 32)] {
            let block = kind.packed(rows, width: width, with: .scalar)
            #expect(block.isQuantized)
            #expect(block.scales.halves.allSatisfy { $0 == 0 })
            #expect(block.codes.bytes.allSatisfy { $0 == 0 })
            let restored = kind.restored(
                block,
                tokens: 32,
                headDimension: 16,
                width: width,
                as: .float16,
                with: .scalar
            )
            let row = ElementType.float16.decode(restored.bytes)
            #expect([row[3], row[0], row[9]] == [-1.5, -1.5, -1.5])
        }
    }

    @Test("Zeros of either sign give the same bytes in any order", arguments: [KernelSet.scalar] + KernelSet.vectorSets)
    func packsMixedZeros(set: KernelSet) {
        let zeros: [[Float]] = [[0, -0.0], [-0.0, 0], [-0.0, -0.0]]
        for pair in zeros {
            let values = (0..<32 * 64).map { pair[min($0 / 64, 1)] }
            let rows = SampleRows(values, type: .float16, tokens: 32, headDimension: 64)
            for kind in [BlockKind.keys(channels: (0..<64).map(\.self)), .values(group: 32)] {
                let block = kind.packed(rows, width: 2, with: set)
                #expect((block.scales.bytes + block.minima.bytes + block.codes.bytes).allSatisfy { $0 == 0 })
            }
        }
    }

    @Test(
        "Only finite values to 65504 are quantized, and only those of the run count",
        arguments: [KernelSet.scalar] + KernelSet.vectorSets,
        ElementType.allCases
    )
    func refuses(set: KernelSet, type: ElementType) {
        let odd: [Float] = [.nan, Float(bitPattern: 0xFFFF_FFFF), .infinity, -.infinity, 65_536, -65_536]
        for (index, value) in odd.enumerated() {
            var values = Pattern.ordinary.values(count: 32 * 64, seed: index)
            let (token, channel) = (index * 5, index * 11)
            values[token * 64 + channel] = value
            let rows = SampleRows(values, type: type, tokens: 32, headDimension: 64)
            let others = (0..<64).filter { $0 != UInt16(channel) }
            #expect(!BlockKind.keys(channels: [UInt16(channel)]).packed(rows, width: 2, with: set).isQuantized)
            #expect(BlockKind.keys(channels: others).packed(rows, width: 2, with: set).isQuantized)
            #expect(!BlockKind.values(group: 32).packed(rows, width: 2, with: set).isQuantized)
        }
        // bfloat16 has 65280 next.
        let largest: Float = type == .bfloat16 ? 65_280 : 65_504
        let rows = SampleRows(
            (0..<32 * 64).map { $0 % 2 == 0 ? largest : -largest },
            type: type,
            tokens: 32,
            headDimension: 64
        )
        #expect(BlockKind.values(group: 64).packed(rows, width: 8, with: set).isQuantized)
    }

    @Test("An empty run is nothing", arguments: [KernelSet.scalar] + KernelSet.vectorSets)
    func packsNothing(set: KernelSet) {
        let rows = SampleRows(.withNaN, type: .float16, tokens: 32, headDimension: 64, seed: 3)
        let kind = BlockKind.keys(channels: [])
        let block = kind.packed(rows, width: 2, with: set)
        #expect(block.isQuantized && block.marginsAreIntact)
        let restored = kind.restored(block, tokens: 32, headDimension: 64, width: 2, as: .float16, with: set)
        #expect(restored.bytes.allSatisfy { $0 == GuardedBytes.filler })
    }

    private func value(ofHalf half: UInt16) -> Float { valueOfHalf(half & 0x7FFF) * (half >> 15 == 0 ? 1 : -1) }
}
