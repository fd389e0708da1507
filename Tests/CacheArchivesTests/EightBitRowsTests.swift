import TestSupport
import Testing
import ThinkCompress

@testable import CacheArchives

/// The window's rows in eight bits.
@Suite struct EightBitRowsTests {
    @Test(arguments: [(1, 1), (3, 2), (32, 32), (40, 33), (64, 0), (128, 65)])
    func rowsComeBackWithinHalfACode(keys: Int, values: Int) throws {
        var generator = SplitMix64(seed: 5)
        let (heads, tokens) = (2, 7)
        func tensor(_ dimension: Int) -> KVTensor {
            KVTensor.random(
                elementType: .float32,
                heads: heads,
                tokens: tokens,
                headDimension: dimension,
                using: &generator
            )
        }
        let layer = KVCacheLayer(keys: tensor(keys), values: tensor(values))
        let geometry = try LayerGeometry(queryHeads: 0, kvHeads: heads, keyDimension: keys, valueDimension: values)
        let bytes = try EightBitRows.encode(layer, rows: 2..<tokens)
        let perRow = [keys, values].reduce(0) { $0 + $1 + ($1 + 31) / 32 * 2 }
        #expect(EightBitRows.byteCount(geometry, rows: tokens - 2) == heads * (tokens - 2) * perRow)
        #expect(bytes.count == heads * (tokens - 2) * perRow)
        for part in CachePart.allCases where geometry.dimension(part) > 0 {
            let dimension = geometry.dimension(part)
            for head in 0..<heads {
                var numbers = [Float](repeating: 0, count: 3 * dimension)
                unsafe numbers.withUnsafeMutableBytes { numbers in
                    unsafe bytes.withUnsafeBytes { bytes in
                        guard let base = numbers.baseAddress else { return }
                        unsafe EightBitRows.decode(
                            bytes,
                            geometry: geometry,
                            part: part,
                            head: head,
                            total: tokens - 2,
                            rows: 3,
                            as: .float32,
                            to: base
                        )
                    }
                }
                for row in 0..<3 {
                    let start = (head * tokens + row + 2) * dimension
                    let original = Array(layer[part].numbers[start..<start + dimension])
                    let restored = numbers[row * dimension..<(row + 1) * dimension]
                    let energy = original.reduce(0) { $0 + $1 * $1 }
                    let error = zip(original, restored).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
                    // Half a code of a group's largest number, which is at most the row's length.
                    let bound = energy * Float(dimension) / (254 * 254) * 1.02
                    #expect(error <= bound, "\(part), row \(row): \(error) of \(energy)")
                }
            }
        }
    }

    @Test func zerosAndTheLargestNumbersComeBack() throws {
        let numbers: [Float] = [0, 0, 65504, -65504]
        let tensor = KVTensor(numbers, elementType: .float32, heads: 1, headDimension: 1)
        let layer = KVCacheLayer(keys: tensor, values: tensor)
        let geometry = try LayerGeometry(queryHeads: 0, kvHeads: 1, keyDimension: 1, valueDimension: 1)
        let bytes = try EightBitRows.encode(layer, rows: 0..<4)
        var found = [Float](repeating: 1, count: 4)
        unsafe found.withUnsafeMutableBytes { found in
            unsafe bytes.withUnsafeBytes { bytes in
                guard let base = found.baseAddress else { return }
                unsafe EightBitRows.decode(
                    bytes,
                    geometry: geometry,
                    part: .values,
                    head: 0,
                    total: 4,
                    rows: 4,
                    as: .float32,
                    to: base
                )
            }
        }
        #expect(found[0] == 0 && found[1] == 0)
        #expect(abs(found[2] - 65504) <= 40 && abs(found[3] + 65504) <= 40)
        #expect(EightBitRows.byteCount(geometry, rows: Int.max / 2) == nil)
    }
}
