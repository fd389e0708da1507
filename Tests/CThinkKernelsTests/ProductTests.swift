import CThinkKernels
import Testing

/// Around the lanes, pairs, steps and strips of the vector kernels, and what models have.
private let manyColumns = [127, 128, 129, 255, 257, 1000, 4095, 4096, 4097, 4225, 8193, 14336]
private let rowCounts = [0, 1, 2, 3, 4, 5, 7, 8, 9, 33]

/// A matrix with unaligned rows that lie apart, and a vector. What lies between rows is NaN.
private struct ProductSample {
    let matrix: SampleRows
    let vector: [Float]
    private let values: [Float]

    var rows: Int { matrix.tokens }
    var columns: Int { matrix.headDimension }

    init(_ values: [Float], vector: [Float], type: ElementType, seed: Int = 1) {
        self.vector = vector
        self.values = type.decode(type.encode(values))
        matrix = SampleRows(
            values,
            type: type,
            tokens: values.count / vector.count,
            headDimension: vector.count,
            padding: seed % 4 * 5,
            shift: seed % 3
        )
    }

    init(_ pattern: Pattern, type: ElementType, rows: Int, columns: Int, seed: Int) {
        self.init(
            pattern.values(count: rows * columns, seed: seed),
            vector: Pattern.ordinary.values(count: columns, seed: seed + 1),
            type: type,
            seed: seed
        )
    }

    /// Products of some of the rows.
    func products(of range: Range<Int>, with set: KernelSet) -> [Float] {
        var guarded = GuardedBytes(count: range.count * 4)
        matrix.withRows { rows in
            guarded.withMutablePointer { outputs in
                let start = tck_weights(
                    bytes: rows.bytes.map { $0 + range.lowerBound * rows.token_stride },
                    row_stride: rows.token_stride,
                    type: matrix.type.weightTag
                )
                let numbers = outputs.assumingMemoryBound(to: Float.self)
                set.kernels.multiply_rows(start, range.count, columns, vector, numbers)
            }
        }
        #expect(guarded.marginsAreIntact, "\(set), \(rows) x \(columns)")
        return ElementType.float32.decode(guarded.bytes)
    }

    func products(with set: KernelSet) -> [Float] { products(of: 0..<rows, with: set) }

    /// By how much the error of a row's product exceeds what the header allows at the most; not above zero.
    func largestExcess(_ products: [Float], of set: KernelSet) -> Double {
        let roundings = Double(set.name == KernelSet.scalar.name ? columns : columns / 16 + 8)
        return products.indices.map { row in
            var sum = 0.0
            var magnitude = 0.0
            for column in 0..<columns {
                let product = Double(values[row * columns + column]) * Double(vector[column])
                sum += product
                magnitude += abs(product)
            }
            return abs(Double(products[row]) - sum) - roundings * 0x1p-24 * magnitude - Double(columns) * 0x1p-150
        }.max() ?? 0
    }
}

@Suite("Products of rows with a vector")
struct ProductTests {
    private static let sets = [KernelSet.scalar] + KernelSet.vectorSets

    @Test("Products are float64's within the bound", arguments: sets, ElementType.allCases)
    func products(set: KernelSet, type: ElementType) {
        for columns in Array(1...67) + manyColumns {
            let pattern = [Pattern.ordinary, .tiny, .offset, .mixedZeros, .constant][columns % 5]
            let rows = columns > 1000 ? 5 : 9
            let sample = ProductSample(pattern, type: type, rows: rows, columns: columns, seed: columns)
            let products = sample.products(with: set)
            #expect(sample.largestExcess(products, of: set) <= 0, "\(pattern), \(columns) columns")
        }
    }

    @Test("Scalar multiplies and adds in order", arguments: ElementType.allCases)
    func scalar(type: ElementType) {
        let sample = ProductSample(.ordinary, type: type, rows: 4, columns: 77, seed: 3)
        let expected = (0..<4).map { row in
            var sum: Float = 0
            for column in 0..<77 {
                let product = sample.matrix.value(token: row, channel: column) * sample.vector[column]
                sum += product
            }
            return sum
        }
        #expect(sample.products(with: .scalar) == expected)
    }

    @Test("A row's product has the same bits in any company", arguments: sets, ElementType.allCases)
    func sharing(set: KernelSet, type: ElementType) {
        for columns in [1, 15, 16, 33, 67, 128, 300, 4100] {
            let sample = ProductSample(.ordinary, type: type, rows: 33, columns: columns, seed: columns)
            let all = sample.products(with: set)
            for count in rowCounts {
                for start in [0, 1, 33 - count] where start + count <= 33 {
                    let some = sample.products(of: start..<start + count, with: set)
                    #expect(some == Array(all[start..<start + count]), "\(count) from \(start), \(columns) columns")
                }
            }
        }
    }

    @Test("Subnormal numbers count", arguments: sets, ElementType.allCases)
    func subnormals(set: KernelSet, type: ElementType) {
        let factor: Float = type == .float16 ? 1e-7 : 0x1p-133
        for columns in [1, 16, 50, 200] {
            let values = Pattern.ordinary.values(count: 5 * columns, seed: columns).map { $0 * factor }
            let vector = Pattern.ordinary.values(count: columns, seed: 3)
            let sample = ProductSample(values, vector: vector, type: type)
            let products = sample.products(with: set)
            #expect(sample.largestExcess(products, of: set) <= 0, "\(columns) columns")
            #expect(products.allSatisfy { $0 != 0 })
        }
    }

    @Test("NaN and infinity reach their own row's product only", arguments: sets, ElementType.allCases)
    func notFinite(set: KernelSet, type: ElementType) {
        for columns in [1, 5, 16, 40, 130, 256, 5000] {
            var values = Pattern.ordinary.values(count: 9 * columns, seed: columns)
            let vector = Pattern.ordinary.values(count: columns, seed: 2).map { abs($0) + 1 }
            let finite = ProductSample(values, vector: vector, type: type).products(with: set)
            values[2 * columns + columns - 1] = .nan
            values[4 * columns] = .infinity
            values[5 * columns + columns / 2] = -.infinity
            let products = ProductSample(values, vector: vector, type: type).products(with: set)
            #expect(products[2].isNaN && products[4] == .infinity && products[5] == -.infinity, "\(columns) columns")
            for row in [0, 1, 3, 6, 7, 8] { #expect(products[row] == finite[row], "\(columns) columns, row \(row)") }
        }
    }

    @Test("A vector's NaN reaches all products", arguments: sets, ElementType.allCases)
    func notFiniteVector(set: KernelSet, type: ElementType) {
        for columns in [1, 31, 130] {
            let values = Pattern.ordinary.values(count: 6 * columns, seed: columns)
            var vector = Pattern.ordinary.values(count: columns, seed: 2)
            vector[columns - 1] = .nan
            let products = ProductSample(values, vector: vector, type: type).products(with: set)
            #expect(products.allSatisfy { $0.isNaN }, "\(columns) columns")
        }
    }
}
