import TestSupport
import ThinkCompress

/// Relative errors of a compressed layer, computed in float64 one query at a time.
struct NaiveErrors {
    /// Squared norms of the difference and of the original.
    struct Pair {
        private var difference = 0.0
        private var original = 0.0

        mutating func add(_ left: [Double], _ right: [Double]) {
            for (x, y) in zip(left, right) {
                difference += (x - y) * (x - y)
                original += x * x
            }
        }

        mutating func add(_ other: Pair) {
            difference += other.difference
            original += other.original
        }

        var relative: Double { (difference / original).squareRoot() }
    }

    private(set) var keys = Pair()
    private(set) var values = Pair()
    private(set) var scores = Pair()
    private(set) var attention = Pair()

    init() {}

    init(original: KVCacheLayer, restored: KVCacheLayer) {
        keys.add(original.keys.numbers.map(Double.init), restored.keys.numbers.map(Double.init))
        values.add(original.values.numbers.map(Double.init), restored.values.numbers.map(Double.init))
        guard let queries = original.queries else { return }
        let exact = ReferenceAttention(queries, over: [original])
        let lossy = ReferenceAttention(queries, over: [restored])
        scores.add(exact.scores, lossy.scores)
        attention.add(exact.output, lossy.output)
    }

    mutating func add(_ other: NaiveErrors) {
        keys.add(other.keys)
        values.add(other.values)
        scores.add(other.scores)
        attention.add(other.attention)
    }
}
