import CThinkKernels
import ComputeRuntime
import Foundation
import Testing

@Suite("Kernels of archive coding")
struct ArchiveKernelTests {
    private static let sets = [KernelSet.scalar] + KernelSet.vectorSets

    private func bits(_ numbers: [Float]) -> [UInt32] { numbers.map(\.bitPattern) }

    // MARK: - Products

    private struct Product {
        let rows: Int
        let inner: Int
        let columns: Int
        /// How much longer the rows of all three matrices are.
        var margin = 0
        /// Whether the left matrix is.
        var isTransposed = true

        var leftStride: Int { (isTransposed ? rows : inner) + margin }
        var leftRowStride: Int { isTransposed ? 1 : leftStride }
        var leftInnerStride: Int { isTransposed ? leftStride : 1 }
        var rightStride: Int { columns + margin }
    }

    private static let products = transposedProducts.flatMap { product in
        var rowByRow = product
        rowByRow.isTransposed = false
        return [product, rowByRow]
    }

    private static let transposedProducts =
        [0, 1, 5, 6, 7, 12, 193].flatMap { rows in
            [0, 1, 4, 8, 15, 16, 17, 31, 33, 64, 65, 100].map { columns in
                Product(rows: rows, inner: (rows + columns) % 7, columns: columns, margin: (rows + columns) % 3)
            }
        } + [0, 1, 127, 128, 129, 256, 300].map { Product(rows: 9, inner: $0, columns: 72, margin: 1) }

    private func left(_ product: Product) -> [Float] {
        Pattern.ordinary.values(
            count: (product.isTransposed ? product.inner : product.rows) * product.leftStride,
            seed: 1
        )
    }

    private func right(_ product: Product) -> [Float] {
        Pattern.ordinary.values(count: product.inner * product.rightStride, seed: 2)
    }

    /// The outputs, with what lies between their rows.
    private func multiply(_ product: Product, set: KernelSet) -> [Float] {
        let stride = product.rightStride
        var guarded = GuardedBytes(count: product.rows * stride * 4, shift: 1)
        guarded.withMutablePointer {
            set.kernels.multiply_in_order(
                left(product),
                product.leftRowStride,
                product.leftInnerStride,
                product.rows,
                right(product),
                stride,
                product.inner,
                product.columns,
                $0.assumingMemoryBound(to: Float.self),
                stride
            )
        }
        #expect(guarded.marginsAreIntact, "\(set), \(product)")
        return ElementType.float32.decode(guarded.bytes)
    }

    @Test("Sums of products are those of the plain order", arguments: sets)
    func multiplyInOrder(set: KernelSet) {
        let filler = ElementType.float32.decode([UInt8](repeating: GuardedBytes.filler, count: 4))[0]
        for product in Self.products {
            let left = left(product)
            let right = right(product)
            let rightStride = product.rightStride
            var expected = [Float](repeating: filler, count: product.rows * rightStride)
            for row in 0..<product.rows {
                for column in 0..<product.columns {
                    var sum: Float = 0
                    for i in 0..<product.inner {
                        // In a statement of its own: never fused.
                        let factor = left[row * product.leftRowStride + i * product.leftInnerStride]
                        let term = factor * right[i * rightStride + column]
                        sum += term
                    }
                    expected[row * rightStride + column] = sum
                }
            }
            #expect(bits(multiply(product, set: set)) == bits(expected), "\(product)")
        }
    }

    @Test("The smallest terms count, and signs of zero are those of sums that begin at 0", arguments: sets)
    func awkwardProducts(set: KernelSet) {
        func multiply(_ left: [Float], _ right: [Float]) -> Float {
            var output = Float.nan
            set.kernels.multiply_in_order(left, 1, 1, 1, right, 1, left.count, 1, &output, 1)
            return output
        }
        #expect(multiply([-0.0], [1]).sign == .plus)
        #expect(multiply([], []).bitPattern == 0)
        #expect(multiply([0x1p-100], [0x1p-49]) == 0x1p-149)
        // Fused, the second term would keep what its product is short of 1.
        #expect(multiply([-1, 1 + 0x1p-23], [1, 1 - 0x1p-23]) == 0)
        #expect(multiply([0x1p127, 0x1p127, -0x1p127], [1, 1, 1]) == .infinity)
    }

    @Test("Products of codes that are mostly 0 continue sums", arguments: sets)
    func sparseProducts(set: KernelSet) {
        var generator = SplitMix64(seed: 9)
        for rows in [0, 1, 3, 4, 5, 9, 64] {
            for columns in [1, 3, 16, 17, 33, 64, 70] {
                let (inner, codeStride, stride) = (5, rows + 1, columns + 2)
                let codes = (0..<inner * codeStride).map { _ -> Int16 in
                    Int.random(in: 0..<6, using: &generator) > 0 ? 0 : Int16.random(in: -300...300, using: &generator)
                }
                let right = Pattern.ordinary.values(count: inner * stride, seed: rows + columns)
                let start = Pattern.ordinary.values(count: rows * stride, seed: 3)
                var expected = start
                for i in 0..<inner {
                    for row in 0..<rows where codes[i * codeStride + row] != 0 {
                        for column in 0..<columns {
                            let term = Float(codes[i * codeStride + row]) * right[i * stride + column]
                            expected[row * stride + column] += term
                        }
                    }
                }
                var sums = start
                set.kernels.add_sparse_products(
                    codes,
                    codeStride,
                    rows,
                    right,
                    stride,
                    inner,
                    columns,
                    &sums,
                    stride
                )
                #expect(bits(sums) == bits(expected), "\(rows) rows, \(columns) columns")
            }
        }
    }

    @Test("Rows are scaled, moved and turned", arguments: sets)
    func restoresRows(set: KernelSet) {
        for dimension in [1, 7, 8, 16, 20, 33, 64, 96] {
            for pairs in [0, dimension / 2, dimension / 4, dimension / 3] {
                let (count, stride) = (3, dimension + 2)
                let sums = Pattern.ordinary.values(count: count * stride, seed: dimension)
                let steps: [Float] = [0.5, 1.7, 3]
                let means = Pattern.ordinary.values(count: dimension, seed: 4)
                let (cosines, sines) = angles(pairs: pairs, rows: count)
                var rows = [Float](repeating: 7, count: count * dimension + 1)
                set.kernels.restore_rows(
                    sums,
                    stride,
                    count,
                    dimension,
                    steps,
                    means,
                    pairs,
                    cosines,
                    sines,
                    &rows
                )
                var expected = (0..<count).flatMap { row in
                    (0..<dimension).map { channel -> Float in
                        let product = sums[row * stride + channel] * steps[row]
                        return product + means[channel]
                    }
                }
                for (row, pair) in (0..<count).flatMap({ row in (0..<pairs).map { (row, $0) } }) {
                    let first = row * dimension + pair
                    let (a, b) = (expected[first], expected[first + pairs])
                    let (cosine, sine) = (cosines[row * pairs + pair], sines[row * pairs + pair])
                    let (aCosine, bCosine, aSine, bSine) = (a * cosine, b * cosine, a * sine, b * sine)
                    expected[first] = aCosine - bSine
                    expected[first + pairs] = bCosine + aSine
                }
                #expect(bits(rows) == bits(expected + [7]), "dimension \(dimension), \(pairs) pairs")
            }
        }
    }

    @Test("Rows become columns less their means, but for those without a place", arguments: [1, 7, 8, 9, 64])
    func centersColumns(dimension: Int) {
        let rows = Pattern.ordinary.values(count: 4 * dimension, seed: dimension)
        let means = Pattern.ordinary.values(count: dimension, seed: 2)
        let places: [UInt32] = [2, .max, 0, 1]
        var columns = [Float](repeating: 9, count: dimension * 5)
        tck_center_columns(rows, places, 4, dimension, means, &columns, 5)
        var expected = [Float](repeating: 9, count: dimension * 5)
        for (row, place) in places.enumerated() where place != .max {
            for channel in 0..<dimension {
                expected[channel * 5 + Int(place)] = rows[row * dimension + channel] - means[channel]
            }
        }
        #expect(columns == expected)
    }

    // MARK: - Numbers

    @Test("Codes become numbers", arguments: sets)
    func widens(set: KernelSet) {
        var generator = SplitMix64(seed: 6)
        for count in sampleCounts {
            let step = Float.random(in: 0.001...10, using: &generator)
            let codes = (0..<count).map { _ in Int16.random(in: Int16.min...Int16.max, using: &generator) }
            var guarded = GuardedBytes(count: count * 4, shift: 1)
            guarded.withMutablePointer {
                set.kernels.widen_codes(codes, count, step, $0.assumingMemoryBound(to: Float.self))
            }
            #expect(ElementType.float32.decode(guarded.bytes) == codes.map { Float($0) * step })
            #expect(guarded.marginsAreIntact)
        }
    }

    private func codes(_ numbers: [Float], inverseStep: Float, set: KernelSet) -> [Int16]? {
        var guarded = GuardedBytes(count: numbers.count * 2, shift: 1)
        let areCodes = guarded.withMutablePointer {
            set.kernels.round_to_codes(numbers, numbers.count, inverseStep, $0.assumingMemoryBound(to: Int16.self))
        }
        #expect(guarded.marginsAreIntact)
        return areCodes ? guarded.halves.map { Int16(bitPattern: $0) } : nil
    }

    @Test("Numbers become codes, rounded to nearest, ties to even", arguments: sets)
    func rounds(set: KernelSet) {
        for count in sampleCounts {
            var numbers = Pattern.ordinary.values(count: count, seed: count)
            for index in numbers.indices where index % 3 == 0 { numbers[index] = Float(index - 500) / 2 }
            for inverseStep: Float in [1, 0.25, 3.7] {
                let expected = numbers.map { Int16(($0 * inverseStep).rounded(.toNearestOrEven)) }
                #expect(codes(numbers, inverseStep: inverseStep, set: set) == expected)
            }
        }
    }

    @Test("What has no code is found at every place", arguments: sets)
    func refuses(set: KernelSet) {
        for count in [1, 3, 16, 21, 40] {
            for place in 0..<count {
                var numbers = [Float](repeating: 1, count: count)
                for number: Float in [32767.5, -32767.5, 1e30, .infinity, -.infinity, .nan] {
                    numbers[place] = number
                    #expect(codes(numbers, inverseStep: 1, set: set) == nil, "\(number), \(place) of \(count)")
                }
                for number: Float in [32767.498, -32767.498, 32767, -0.0] {
                    numbers[place] = number
                    let expected = numbers.map { Int16($0.rounded()) }
                    #expect(codes(numbers, inverseStep: 1, set: set) == expected, "\(number), \(place) of \(count)")
                }
            }
        }
    }

    // MARK: - Rotary embeddings

    private func angles(_ frequencies: [Float], _ positions: [Int32]) -> (cosines: [Float], sines: [Float]) {
        var cosines = [Float](repeating: .nan, count: frequencies.count * positions.count)
        var sines = cosines
        tck_rotary_angles(frequencies, frequencies.count, positions, positions.count, &cosines, &sines)
        return (cosines, sines)
    }

    @Test("Cosines and sines are those of float64, rounded")
    func rotaryAngles() {
        var generator = SplitMix64(seed: 8)
        let frequencies: [Float] = (0..<64).map { Float(pow(10_000, -Double($0) / 64)) } + [0, 1.5, -1]
        let positions: [Int32] =
            Array(-50...200) + [Int32.max, Int32.min, 131_072]
            + (0..<300).map { _ in Int32(truncatingIfNeeded: generator.next()) >> Int32(generator.next() % 31) }
        let (cosines, sines) = angles(frequencies, positions)
        for (row, position) in positions.enumerated() {
            for (column, frequency) in frequencies.enumerated() {
                let angle = Double(position) * Double(frequency)
                // The float64's error may move what lies almost in the middle of two float32 to the other.
                func isNear(_ number: Float, _ exact: Double) -> Bool {
                    abs(Double(number) - exact) <= Double(Float(exact).ulp) / 2 + 1e-15
                }
                let index = row * frequencies.count + column
                #expect(isNear(cosines[index], cos(angle)) && isNear(sines[index], sin(angle)), "\(angle)")
            }
        }
    }

    @Test("Angles are of the same bits everywhere")
    func knownAngles() {
        let frequencies: [Float] = (0..<32).map { 1 / Float(1 + 3 * $0) }
        let positions = (0..<512).map { Int32($0 * $0 * 7919) }
        let (cosines, sines) = angles(frequencies, positions)
        let first = KernelSet.scalar.kernels.crc32c(0, cosines, cosines.count * 4)
        // From Python's float64, by Formats/archive-coder.md.
        let expected: UInt32 = 0xA5D6_1DAF
        #expect(KernelSet.scalar.kernels.crc32c(first, sines, sines.count * 4) == expected)
    }

    private func angles(pairs: Int, rows: Int) -> (cosines: [Float], sines: [Float]) {
        angles((0..<pairs).map { 1 / Float(1 + $0) }, (0..<rows).map { Int32(3 + 7 * $0) })
    }

    @Test("Pairs are rotated back", arguments: sets)
    func rotatesBack(set: KernelSet) {
        for pairs in [0, 1, 3, 4, 8, 15, 16, 20, 32, 48, 64] {
            for count in [0, 1, 5] {
                let stride = 2 * pairs + pairs % 3
                let rows = Pattern.ordinary.values(count: count * stride, seed: pairs)
                let (cosines, sines) = angles(pairs: pairs, rows: count)
                var guarded = GuardedBytes(count: rows.count * 4, shift: 1)
                guarded.withMutablePointer { bytes in
                    rows.withUnsafeBytes {
                        if let from = $0.baseAddress { bytes.copyMemory(from: from, byteCount: $0.count) }
                    }
                    let rows = bytes.assumingMemoryBound(to: Float.self)
                    set.kernels.rotate_back(rows, count, stride, pairs, cosines, sines)
                }
                #expect(guarded.marginsAreIntact)
                var expected = rows
                for row in 0..<count {
                    for pair in 0..<pairs {
                        let (a, b) = (rows[row * stride + pair], rows[row * stride + pair + pairs])
                        let (cosine, sine) = (cosines[row * pairs + pair], sines[row * pairs + pair])
                        let (aCosine, bCosine, aSine, bSine) = (a * cosine, b * cosine, a * sine, b * sine)
                        expected[row * stride + pair] = aCosine + bSine
                        expected[row * stride + pair + pairs] = bCosine - aSine
                    }
                }
                let rotated = ElementType.float32.decode(guarded.bytes)
                #expect(bits(rotated) == bits(expected), "\(pairs) pairs, \(count) rows")
            }
        }
    }
}
