import CThinkKernels
import ComputeRuntime
import Foundation
import TestSupport
import Testing

@Suite("Weights in ggml's types")
struct WeightTests {
    /// What Tools/make-weight-fixtures wrote: blocks, and what the Python package gguf makes of them.
    private static func fixture(_ type: WeightType) throws -> (blocks: [UInt8], numbers: [Float]) {
        let path = ProjectFiles.fixture("weights/\(type.name).bin")
        let bytes = [UInt8](try Data(contentsOf: URL(filePath: path)))
        let count = bytes.count / (type.blockByteCount + type.blockLength * 4)
        #expect(bytes.count == count * (type.blockByteCount + type.blockLength * 4) && count >= 20)
        let numbers = Array(bytes[(count * type.blockByteCount)...])
        return (Array(bytes[..<(count * type.blockByteCount)]), ElementType.float32.decode(numbers))
    }

    /// The bits of numbers; of NaN only that it is one.
    private static func bits(_ numbers: [Float]) -> [UInt32] { numbers.map { $0.isNaN ? 0x7FC0_0000 : $0.bitPattern } }

    @Test(
        "have the numbers of the Python package",
        arguments: [KernelSet.scalar] + KernelSet.vectorSets,
        WeightType.all
    )
    func goldenNumbers(set: KernelSet, type: WeightType) throws {
        let (blocks, numbers) = try Self.fixture(type)
        #expect(Self.bits(WeightSample.numbers(of: blocks, type: type, with: set)) == Self.bits(numbers))
    }

    @Test(
        "widen to scalar's bits, any number of blocks from any address",
        arguments: KernelSet.vectorSets,
        WeightType.all
    )
    func anyCount(set: KernelSet, type: WeightType) {
        for blocks in Array(0...9) + [33] {
            let sample = WeightSample(type, blocks: blocks, seed: blocks + 1)
            let shifted = [UInt8](repeating: 0, count: 1 + blocks % 3) + sample.bytes
            var widened = GuardedBytes(count: blocks * type.blockLength * 4, shift: 4)
            shifted.withUnsafeBytes { source in
                widened.withMutablePointer {
                    let numbers = $0.assumingMemoryBound(to: Float.self)
                    let start = source.baseAddress! + 1 + blocks % 3
                    set.kernels.widen_weights(type.kernelType, start, blocks * type.blockLength, numbers)
                }
            }
            #expect(ElementType.float32.decode(widened.bytes) == sample.numbers, "\(blocks) blocks")
            #expect(widened.marginsAreIntact, "\(blocks) blocks")
        }
    }
}

/// A matrix of blocks with unaligned rows that lie apart, and a vector. What lies between rows is NaN.
private struct BlockProductSample {
    let weights: WeightSample
    let rows: Int
    let vector: [Float]
    private let bytes: [UInt8]
    private let stride: Int
    private let shift: Int

    var columns: Int { vector.count }

    init(_ weights: WeightSample, rows: Int, vector: [Float], seed: Int) {
        self.weights = weights
        self.rows = rows
        self.vector = vector
        let rowBytes = weights.bytes.count / rows
        stride = rowBytes + seed % 4 * 5
        shift = seed % 3
        var bytes = [UInt8](repeating: 0xFF, count: shift + (rows - 1) * stride + rowBytes)
        for row in 0..<rows {
            let place = shift + row * stride
            bytes.replaceSubrange(
                place..<place + rowBytes,
                with: weights.bytes[(row * rowBytes)..<(row + 1) * rowBytes]
            )
        }
        self.bytes = bytes
    }

    init(_ type: WeightType, rows: Int, blocks: Int, seed: Int) {
        self.init(
            WeightSample(type, blocks: rows * blocks, seed: seed),
            rows: rows,
            vector: Pattern.ordinary.values(count: blocks * type.blockLength, seed: seed + 1),
            seed: seed
        )
    }

    /// Products of some of the rows.
    func products(of range: Range<Int>, with set: KernelSet) -> [Float] {
        var guarded = GuardedBytes(count: range.count * 4)
        bytes.withUnsafeBytes { buffer in
            guarded.withMutablePointer { outputs in
                let start = tck_weights(
                    bytes: buffer.baseAddress! + shift + range.lowerBound * stride,
                    row_stride: stride,
                    type: weights.type.kernelType
                )
                let numbers = outputs.assumingMemoryBound(to: Float.self)
                set.kernels.multiply_rows(start, range.count, columns, vector, numbers)
            }
        }
        #expect(guarded.marginsAreIntact, "\(set), \(rows) x \(columns)")
        return ElementType.float32.decode(guarded.bytes)
    }

    /// By how much the error of a row's product exceeds what the header allows at the most; not above zero.
    func largestExcess(_ products: [Float], of set: KernelSet) -> Double {
        let isScalar = set.name == KernelSet.scalar.name
        let numbers = weights.numbers
        let magnitudes = isScalar ? numbers.map(abs) : weights.largestMagnitudes.map { 3 * $0 }
        let roundings = Double(isScalar ? columns : columns / 16 + 16)
        return products.indices.map { row in
            var sum = 0.0
            var bound = 0.0
            for column in 0..<columns {
                let index = row * columns + column
                sum += Double(numbers[index]) * Double(vector[column])
                bound += Double(magnitudes[index]) * (roundings * 0x1p-24 * Double(abs(vector[column])) + 0x1p-126)
            }
            return abs(Double(products[row]) - sum) - bound
        }.max() ?? 0
    }
}

@Suite("Products of rows in blocks with a vector")
struct BlockProductTests {
    private static let sets = [KernelSet.scalar] + KernelSet.vectorSets

    @Test("Products are float64's within the bound", arguments: sets, WeightType.inBlocks)
    func products(set: KernelSet, type: WeightType) {
        // Around the lines, steps and strips of the vector kernels, and what models have.
        let counts =
            type.blockLength == 32 ? Array(1...13) + [18, 48, 127, 128, 129, 263] : Array(1...5) + [15, 16, 17, 33]
        for blocks in counts {
            let sample = BlockProductSample(type, rows: 5, blocks: blocks, seed: blocks)
            let products = sample.products(of: 0..<5, with: set)
            #expect(sample.largestExcess(products, of: set) <= 0, "\(blocks) blocks")
        }
    }

    @Test("Vectors may be tiny", arguments: sets, WeightType.inBlocks)
    func tinyVectors(set: KernelSet, type: WeightType) {
        let weights = WeightSample(type, blocks: 21, seed: 4)
        for factor in [0x1p-100, 0x1p-120, 0x1p-133] as [Float] {
            let vector = Pattern.ordinary.values(count: 7 * type.blockLength, seed: 5).map { $0 * factor }
            let sample = BlockProductSample(weights, rows: 3, vector: vector, seed: 1)
            #expect(sample.largestExcess(sample.products(of: 0..<3, with: set), of: set) <= 0, "\(factor)")
        }
    }

    @Test("A row's product has the same bits in any company", arguments: sets, WeightType.inBlocks)
    func sharing(set: KernelSet, type: WeightType) {
        for blocks in type.blockLength == 32 ? [1, 2, 3, 7, 18, 130] : [1, 2, 17] {
            let sample = BlockProductSample(type, rows: 9, blocks: blocks, seed: blocks)
            let all = sample.products(of: 0..<9, with: set)
            for count in 0...9 {
                for start in Set([0, 1, 9 - count]) where start + count <= 9 {
                    let some = sample.products(of: start..<start + count, with: set)
                    #expect(some == Array(all[start..<start + count]), "\(count) from \(start), \(blocks) blocks")
                }
            }
        }
    }

    @Test(
        "A scale that is NaN reaches its own row's product only",
        arguments: sets,
        WeightType.inBlocks.filter { !$0.scalePlaces.isEmpty }
    )
    func notFinite(set: KernelSet, type: WeightType) {
        for blocks in [1, 2, 5] {
            let finite = BlockProductSample(type, rows: 5, blocks: blocks, seed: blocks)
            var bytes = finite.weights.bytes
            let last = bytes.count / 5 * 3 - type.blockByteCount
            for place in type.scalePlaces {
                bytes.replaceSubrange(last + place..<last + place + 2, with: [0x00, 0x7E])
            }
            let weights = WeightSample(type, bytes: bytes)
            let sample = BlockProductSample(weights, rows: 5, vector: finite.vector, seed: blocks)
            let expected = finite.products(of: 0..<5, with: set)
            let products = sample.products(of: 0..<5, with: set)
            #expect(products[2].isNaN, "\(blocks) blocks")
            for row in [0, 1, 3, 4] { #expect(products[row] == expected[row], "\(blocks) blocks, row \(row)") }
        }
    }
}
