import ByteStorage
import ComputeRuntime
import TestSupport
import Testing

@testable import LlamaDecoder

/// Matrices of weights in blocks, and products with them.
@Suite struct WeightMatrixTests {
    private static let headDimension = 8
    private static let rows = 5 * headDimension
    private static let columns = 512

    /// Rows of random codes whose scales are between 2^-8 and 2^-4, and the same in another order.
    private static func bytes(_ type: WeightType, order: [Int]) -> SharedBytes {
        var random = SplitMix64(seed: 3)
        let rowBytes = type.byteCount(of: columns)
        let blocks = columns / type.blockLength
        let scales = ["Q4_0": [0], "Q4_1": [0, 2], "Q8_0": [0], "Q6_K": [208]][type.name] ?? []
        var bytes = (0..<rows * rowBytes).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        for block in 0..<rows * blocks {
            for place in scales {
                let at = block * type.blockByteCount + place + 1
                bytes[at] = bytes[at] & 0x8F | 0x1C
            }
        }
        return SharedBytes(order.flatMap { bytes[($0 * rowBytes)..<($0 + 1) * rowBytes] })
    }

    /// The matrix's row at each place of a file where halves of heads take turns.
    private static let interleaved = (0..<rows).map { place in
        let (head, index) = place.quotientAndRemainder(dividingBy: headDimension)
        return head * headDimension + index % 2 * headDimension / 2 + index / 2
    }

    private static let types = WeightType.all.filter { ["Q4_0", "Q4_1", "Q8_0", "Q6_K"].contains($0.name) }

    private static func matrices(_ type: WeightType) -> (plain: WeightMatrix, interleaved: WeightMatrix) {
        (
            WeightMatrix(bytes: bytes(type, order: Array(0..<rows)), type: type, rows: rows, columns: columns),
            WeightMatrix(
                bytes: bytes(type, order: interleaved),
                type: type,
                rows: rows,
                columns: columns,
                rowOrder: .interleavedHalves(headDimension: headDimension)
            )
        )
    }

    private static func numbers(_ matrix: WeightMatrix, from row: Int, count: Int) -> [Float] {
        var numbers = [Float](repeating: 0, count: count * matrix.columns)
        numbers.withUnsafeMutableBufferPointer { matrix.widen(from: row, count: count, into: $0.baseAddress!) }
        return numbers
    }

    @Test(arguments: types) func rowsOfInterleavedHeadsComeInOrder(type: WeightType) {
        let (plain, interleaved) = Self.matrices(type)
        let all = Self.numbers(plain, from: 0, count: Self.rows)
        #expect(Set(all).count > 100)
        #expect(Self.numbers(interleaved, from: 0, count: Self.rows) == all)
        for (row, count) in [(3, 1), (2, 9), (7, 20), (39, 1), (12, 0)] {
            let expected = Array(all[(row * Self.columns)..<(row + count) * Self.columns])
            #expect(Self.numbers(interleaved, from: row, count: count) == expected, "\(count) from \(row)")
        }
    }

    @Test(arguments: types, [1, 2, 7, 30])
    func productsAreThoseOfTheNumbers(type: WeightType, count: Int) throws {
        let (plain, interleaved) = Self.matrices(type)
        let weights = Self.numbers(plain, from: 0, count: Self.rows)
        var random = SplitMix64(seed: 5)
        let bias = (0..<Self.rows).map { _ in Float.random(in: -1...1, using: &random) }
        var input = (0..<count * Self.columns).map { _ in Float.random(in: -1...1, using: &random) }
        for threads in [1, 3] {
            let products = MatrixProducts(workers: WorkerThreads(threadCount: threads))
            let single = SingleThreadedProducts()
            var outputs: [[Float]] = []
            for matrix in [plain, interleaved] {
                var output = [Float](repeating: 0, count: count * Self.rows)
                let linear = Linear(weights: matrix, bias: bias)
                try output.withUnsafeMutableBufferPointer { output in
                    let base = try #require(output.baseAddress)
                    try products.multiply(&input, count: count, .init(linear, into: base))
                }
                outputs.append(output)
            }
            _ = consume single
            #expect(outputs[0] == outputs[1])
            for row in 0..<count {
                for column in 0..<Self.rows {
                    var sum = Double(bias[column])
                    var magnitude = 0.0
                    for index in 0..<Self.columns {
                        let product =
                            Double(input[row * Self.columns + index]) * Double(weights[column * Self.columns + index])
                        sum += product
                        magnitude += abs(product)
                    }
                    #expect(abs(Double(outputs[0][row * Self.rows + column]) - sum) < 3e-6 * magnitude + 1e-6)
                }
            }
        }
    }
}
