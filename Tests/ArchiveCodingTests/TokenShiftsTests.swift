import TestSupport
import Testing
import ThinkCompress

@testable import ArchiveCoding

/// Which tokens get finer steps.
@Suite struct TokenShiftsTests {
    /// A cache of one layer whose query gives token t a softmax weight in proportion to `weights[t]`.
    private static func cache(_ weights: [Double], heads: Int = 1) throws -> KVCache {
        // One key channel: the score is key times query over the root of the dimension, 1.
        let keys = weights.map { Float(naturalLogarithm($0)) }
        let all = [[Float]](repeating: keys, count: heads).flatMap(\.self)
        let values = [Float](repeating: 0, count: all.count)
        let queries = [Float](repeating: 1, count: heads)
        func tensor(_ numbers: [Float], heads: Int) -> KVTensor {
            KVTensor(numbers, elementType: .float32, heads: heads, headDimension: 1)
        }
        let layer = KVCacheLayer(
            keys: tensor(all, heads: heads),
            values: tensor(values, heads: heads),
            queries: tensor(queries, heads: heads)
        )
        return try KVCache(layers: [layer], tokenCount: weights.count)
    }

    /// ln x, of a series: without the system's mathematics.
    private static func naturalLogarithm(_ x: Double) -> Double {
        let (power, rest) = (Double(x.exponent), (x.significand - 1) / (x.significand + 1))
        var (sum, term) = (0.0, rest)
        for k in 0..<30 {
            sum += 2 * term / Double(2 * k + 1)
            term *= rest * rest
        }
        return sum + power * 0.693_147_180_559_945_3
    }

    @Test(arguments: [1, 2]) func multiplesOfTheMedianGetFinerSteps(heads: Int) async throws {
        // The lower median of the body, tokens 1 to 7, is 1; the first and the last are not of it.
        let weights: [Double] = [100, 1, 3.9, 0.5, 4.1, 0.25, 15.9, 1, 16.1, 63.9, 64.1, 1000]
        let cache = try Self.cache(weights, heads: heads)
        let shifts = try await TokenShifts.byAttention(cache, window: 128, body: 1..<8, progress: nil)
        #expect(shifts == [3, 0, 0, 0, 1, 0, 1, 0, 2, 2, 3, 3])
    }

    @Test func onlyTheLastQueriesCount() async throws {
        var cache = try Self.cache([1, 1, 1, 80])
        let layer = cache.layers[0]
        // The first of two queries looks the other way.
        let queries = KVTensor([-1, 1], elementType: .float32, heads: 1, headDimension: 1)
        cache = try KVCache(
            layers: [KVCacheLayer(keys: layer.keys, values: layer.values, queries: queries)],
            tokenCount: 4
        )
        let shifts = try await TokenShifts.byAttention(cache, window: 1, body: 0..<4, progress: nil)
        #expect(shifts == [0, 0, 0, 3])
    }

    @Test func anEmptyBodyHasNoFinerSteps() async throws {
        let shifts = try await TokenShifts.byAttention(Self.cache([1, 100]), window: 1, body: 0..<0, progress: nil)
        #expect(shifts == [0, 0])
    }

    @Test func withoutQueriesSixteenUnusualKeysGetFinerSteps() async throws {
        let tokens = 40
        let unusual = Set([3, 7, 11, 12, 13, 14, 15, 16, 20, 22, 24, 26, 30, 31, 33, 36])
        let keys = (0..<tokens).map { Float(unusual.contains($0) ? 10 + $0 : $0 % 3) * ($0 % 2 == 0 ? 1 : -1) }
        let tensor = KVTensor(keys, elementType: .float32, heads: 1, headDimension: 1)
        let cache = try KVCache(layers: [KVCacheLayer(keys: tensor, values: tensor)], tokenCount: tokens)
        let shifts = try await TokenShifts.byDistance(cache, body: 2..<38, progress: nil)
        #expect(shifts == (0..<tokens).map { unusual.contains($0) ? 2 : 0 })
        let few = try await TokenShifts.byDistance(cache, body: 2..<6, progress: nil)
        #expect(few == (0..<tokens).map { (2..<6).contains($0) ? 2 : 0 })
    }
}
