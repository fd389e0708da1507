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

    /// The errors of a layer that lists some of the original's tokens: those of its rows, and of attention against that over
    /// all.
    ///
    /// - Parameter kept: the original's rows of these tokens.
    init(original: KVCacheLayer, kept: KVCacheLayer, restored: KVCacheLayer, tokenCount: Int) {
        self.init()
        keys.add(kept.keys.numbers.map(Double.init), restored.keys.numbers.map(Double.init))
        values.add(kept.values.numbers.map(Double.init), restored.values.numbers.map(Double.init))
        guard let queries = original.queries else { return }
        func reference(_ layer: KVCacheLayer) -> ReferenceAttention {
            ReferenceAttention(queries, over: [layer], tokenCount: tokenCount)
        }
        scores.add(reference(kept).scores, reference(restored).scores)
        attention.add(reference(original).output, reference(restored).output)
    }

    mutating func add(_ other: NaiveErrors) {
        keys.add(other.keys)
        values.add(other.values)
        scores.add(other.scores)
        attention.add(other.attention)
    }
}
