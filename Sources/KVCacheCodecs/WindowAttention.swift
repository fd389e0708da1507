internal import ByteStorage
package import CachePacking
package import KVCacheModel

/// The attention that a KV head's rows get from the cache's last queries.
///
/// All in float64 and in a fixed order, so that the same cache gives the same weights on every machine:
/// Formats/selection.md, "Attention of the window".
package struct WindowAttention {
    /// Queries that are computed together.
    private typealias Lanes = SIMD8<Double>

    /// The softmax weight of each row, added up over the queries of all query heads of the group.
    package private(set) var weights: [Double]
    private let keys: FiniteRows
    /// By query, how many of the rows it sees: those of its own token and of earlier ones.
    private let visible: [Int]

    /// - Parameter queries: those of the cache's last tokens: `[queryHeads, window, keyDimension]`.
    /// - Throws: `CodecError` if a key or query is not finite, or there is no memory.
    package init(_ statistics: LayerStatistics, head: Int, queries: KVTensor) throws(CodecError) {
        keys = try FiniteRows(statistics, keysOfHead: head)
        weights = [Double](repeating: 0, count: keys.count)
        var rows = 0
        var visible: [Int] = []
        for token in statistics.tokenCount - queries.tokens..<statistics.tokenCount {
            while rows < keys.count, statistics.token(ofRow: rows, head: head) <= token { rows += 1 }
            visible.append(rows)
        }
        self.visible = visible
        do {
            try AlignedBuffer.checkAvailability(byteCount: keys.count * MemoryLayout<Lanes>.stride)
        } catch {
            throw CodecError(error, layer: statistics.layer)
        }
        let group = queries.heads / statistics.geometry.kvHeads
        for queryHead in head * group..<(head + 1) * group {
            let queries = try FiniteRows(queries, queryHead: queryHead, layer: statistics.layer)
            for first in stride(from: 0, to: queries.count, by: Lanes.scalarCount) { add(queries, from: first) }
        }
    }

    /// Adds the weights that some queries give.
    private mutating func add(_ queries: FiniteRows, from first: Int) {
        let count = min(queries.count - first, Lanes.scalarCount)
        var channels = [Lanes](repeating: .zero, count: keys.dimension)
        // Lanes without a query see no row.
        var seen = SIMD8<Int64>.zero
        for lane in 0..<count {
            seen[lane] = Int64(visible[first + lane])
            for channel in channels.indices { channels[channel][lane] = Double(queries[first + lane, channel]) }
        }
        let seenByAll = seen.min()
        let scale = Lanes(repeating: Double(keys.dimension).squareRoot())
        var highest = Lanes(repeating: -.infinity)
        var scores = [Lanes](repeating: .zero, count: keys.count)
        addProducts(channels, to: &scores)
        for row in scores.indices {
            var products = scores[row] / scale
            if row >= seenByAll { products.replace(with: -.infinity, where: seen .<= Int64(row)) }
            scores[row] = products
            highest.replace(with: products, where: products .> highest)
        }
        // So that what is seen by nobody is no NaN.
        highest.replace(with: 0, where: seen .== 0)
        var sums = Lanes.zero
        let coefficients = Self.inverseFactorials
        for row in scores.indices {
            scores[row] = Self.exponential(scores[row] - highest, coefficients)
            sums += scores[row]
        }
        sums.replace(with: 1, where: seen .== 0)
        for row in scores.indices {
            let shares = scores[row] / sums
            for lane in 0..<count { weights[row] += shares[lane] }
        }
    }

    /// Adds to each row's score the products of its key and the queries' channels, channel by channel.
    private func addProducts(_ channels: [Lanes], to scores: inout [Lanes]) {
        let dimension = keys.dimension
        unsafe keys.withNumbers { keys in
            unsafe channels.withUnsafeBufferPointer { channels in
                unsafe scores.withUnsafeMutableBufferPointer { scores in
                    for row in scores.indices {
                        var products = unsafe scores[row]
                        for channel in 0..<dimension {
                            unsafe products += channels[channel] * Double(keys[row * dimension + channel])
                        }
                        unsafe scores[row] = products
                    }
                }
            }
        }
    }

    /// The exponential function of numbers up to 0; 0 below -700.
    ///
    /// A power of two times a polynomial of degree 13, of which every operation is rounded alike everywhere.
    ///
    /// - Parameter coefficients: `inverseFactorials`, looked up once for many numbers.
    private static func exponential(_ x: Lanes, _ coefficients: [Double]) -> Lanes {
        let bounded = x.replacing(with: -700, where: x .< -700)
        // Added and taken away again, it rounds to whole numbers, which are then its last bits.
        let rounder = 0x1.8p52
        let shifted = bounded * 0x1.71547652b82fep0 + rounder
        let power = shifted - rounder
        let rest = bounded - power * 0x1.62e42feep-1 - power * 0x1.a39ef35793c76p-33
        var sum = Lanes(repeating: coefficients[0])
        for index in 1..<coefficients.count { sum = sum * rest + coefficients[index] }
        let bits =
            unsafe unsafeBitCast(sum, to: SIMD8<UInt64>.self)
            &+ unsafeBitCast(shifted, to: SIMD8<UInt64>.self) &<< 52
        let result = unsafe unsafeBitCast(bits, to: Lanes.self)
        return result.replacing(with: 0, where: x .< -700)
    }

    /// 1 / 13!, 1 / 12! ... 1 / 0!
    private static let inverseFactorials: [Double] = (0...13).reversed().map { number in
        1 / (0..<number).reduce(1.0) { $0 * Double($1 + 1) }
    }
}
