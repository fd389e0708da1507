import CThinkKernels
import Testing

@Suite("Conversion kernels")
struct ConversionTests {
    @Test(
        "Every 16-bit number widens to the bits of scalar",
        arguments: KernelSet.vectorSets,
        [ElementType.float16, .bfloat16]
    )
    func widensEveryNumber(set: KernelSet, type: ElementType) {
        let numbers = (0...UInt16.max).map(\.self)
        #expect(widen(numbers, as: type, with: set) == widen(numbers, as: type, with: .scalar))
    }

    @Test("Float32 numbers near every 16-bit number narrow to the bits of scalar", arguments: KernelSet.vectorSets)
    func narrowsSample(set: KernelSet) {
        for type in [ElementType.float16, .bfloat16] {
            for low in [0, 1, 0x0FFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xF000, 0xFFFF]
                as [UInt32]
            {
                let values = (0...UInt32(UInt16.max)).map { Float(bitPattern: $0 << 16 | low) }
                #expect(
                    narrow(values, to: type, with: set) == narrow(values, to: type, with: .scalar),
                    "\(type) \(low)"
                )
            }
        }
    }

    @Test(
        "Any count of elements converts as in scalar and nothing else is written",
        arguments: KernelSet.vectorSets,
        ElementType.allCases
    )
    func convertsAnyCount(set: KernelSet, type: ElementType) {
        for count in sampleCounts {
            let values = Pattern.ordinary.values(count: count, seed: count)
            let encoded = [UInt8](repeating: 0, count: 1) + type.encode(values)
            var widened = GuardedBytes(count: count * 4, shift: 4)
            var narrowed = GuardedBytes(count: count * type.byteCount, shift: 1)
            encoded.withUnsafeBytes { source in
                widened.withMutablePointer {
                    set.kernels.widen(type.tag, source.baseAddress! + 1, count, $0.assumingMemoryBound(to: Float.self))
                }
            }
            narrowed.withMutablePointer { set.kernels.narrow(type.tag, values, count, $0) }
            #expect(ElementType.float32.decode(widened.bytes) == type.decode(Array(encoded.dropFirst())))
            #expect(narrowed.bytes == type.encode(values))
            #expect(widened.marginsAreIntact && narrowed.marginsAreIntact)
        }
    }

    @Test("Scalar widens float16 by its definition")
    func scalarWidensFloat16() {
        let widened = widen((0...UInt16.max).map(\.self), as: .float16, with: .scalar).map(Float.init(bitPattern:))
        for half in 0...UInt16.max {
            let magnitude = half & 0x7FFF
            let expected = valueOfHalf(magnitude) * (half >> 15 == 0 ? 1 : -1)
            if magnitude > 0x7C00 {
                #expect(widened[Int(half)].isNaN && !widened[Int(half)].isSignalingNaN)
            } else if widened[Int(half)].bitPattern != expected.bitPattern {
                Issue.record("\(half): \(widened[Int(half)]), not \(expected)")
            }
        }
    }

    @Test("Scalar narrows to the nearest float16, ties to even")
    func scalarNarrowsToFloat16() {
        // Numbers at, half way between, and just beside half way between neighbours.
        for half in 0..<UInt16(0x7BFF) {
            let lower = valueOfHalf(half)
            let upper = valueOfHalf(half + 1)
            let middle = (lower + upper) / 2
            let even = half % 2 == 0 ? half : half + 1
            let values = [lower, middle.nextDown, middle, middle.nextUp, upper]
            let narrowed = narrow(values + values.map { -$0 }, to: .float16, with: .scalar)
            let expected = [half, half, even, half + 1, half + 1]
            if narrowed != expected + expected.map({ $0 | 0x8000 }) { Issue.record("\(half): \(narrowed)") }
        }
        let edges: [Float] = [
            65_519.996, 65_520, .greatestFiniteMagnitude, .infinity, -.infinity, .leastNonzeroMagnitude,
        ]
        #expect(narrow(edges, to: .float16, with: .scalar) == [0x7BFF, 0x7C00, 0x7C00, 0x7C00, 0xFC00, 0])
        #expect(narrow([.nan], to: .float16, with: .scalar)[0] & 0x7FFF > 0x7C00)
    }

    @Test("Scalar narrows to the nearest bfloat16, ties to even")
    func scalarNarrowsToBFloat16() {
        let bits: [UInt32] = [
            0x3F80_0000, 0x3F80_7FFF, 0x3F80_8000, 0x3F80_8001, 0x3F81_8000, 0x7F7F_FFFF, 0x0000_8001, 0xBF80_8001,
        ]
        let narrowed = narrow(bits.map(Float.init(bitPattern:)), to: .bfloat16, with: .scalar)
        #expect(narrowed == [0x3F80, 0x3F80, 0x3F80, 0x3F81, 0x3F82, 0x7F80, 0x0001, 0xBF81])
        #expect(narrow([Float(bitPattern: 0x7F80_0001)], to: .bfloat16, with: .scalar) == [0x7FC0])
    }

    private func widen(_ numbers: [UInt16], as type: ElementType, with set: KernelSet) -> [UInt32] {
        var values = [Float](repeating: 0, count: numbers.count)
        set.kernels.widen(type.tag, numbers, numbers.count, &values)
        return values.map(\.bitPattern)
    }

    private func narrow(_ values: [Float], to type: ElementType, with set: KernelSet) -> [UInt16] {
        var numbers = [UInt16](repeating: 0, count: values.count)
        set.kernels.narrow(type.tag, values, values.count, &numbers)
        return numbers
    }
}
