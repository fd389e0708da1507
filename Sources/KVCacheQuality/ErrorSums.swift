internal import CachePacking

/// Squared differences and squared originals, added up over layers and heads.
struct ErrorSums: Sendable {
    /// One kind of number that is compared.
    struct Pair: Sendable {
        var difference = 0.0
        var original = 0.0

        mutating func add(_ original: Float, _ other: Float) {
            // Infinities and NaN that came back as they were are no error.
            let isSame = original == other || original.isNaN && other.isNaN
            let difference = isSame ? 0 : Double(original) - Double(other)
            self.difference += difference * difference
            self.original += Double(original) * Double(original)
        }

        mutating func add(_ other: Pair) {
            difference += other.difference
            original += other.original
        }

        /// The Frobenius norm of the difference over that of the original; 0 where nothing differs, and no number where
        /// the original is not finite, against which any difference would be none.
        var relativeError: Float {
            if difference == 0 { return 0 }
            return original.isFinite ? Float((difference / original).squareRoot()) : .nan
        }

        /// Makes the error no number if what is computed is not finite, and so may hide errors of what it is computed
        /// from.
        mutating func hide(errorsOf sources: Pair...) {
            if !sources.allSatisfy({ $0.difference == 0 }) { invalidateIfNotFinite() }
        }

        /// Makes the error no number if what is computed is not finite.
        mutating func invalidateIfNotFinite() {
            if !original.isFinite { difference = .nan }
        }
    }

    var keys = Pair()
    var values = Pair()
    var scores: Pair?
    var attention: Pair?

    mutating func add(_ other: ErrorSums) {
        keys.add(other.keys)
        values.add(other.values)
        scores.add(other.scores)
        attention.add(other.attention)
    }

    var errors: CompressionQuality.Errors {
        CompressionQuality.Errors(
            keys: keys.relativeError,
            values: values.relativeError,
            scores: scores?.relativeError,
            attention: attention?.relativeError
        )
    }
}

extension ErrorSums.Pair? {
    fileprivate mutating func add(_ other: ErrorSums.Pair?) {
        guard let other else { return }
        var sum = self ?? ErrorSums.Pair()
        sum.add(other)
        self = sum
    }
}
