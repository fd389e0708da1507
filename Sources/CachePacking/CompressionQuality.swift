/// What compression cost: relative errors, the Frobenius norm of the difference over that of the original.
public struct CompressionQuality: Sendable, Equatable {
    /// Errors of one layer, or of all.
    public struct Errors: Sendable, Equatable {
        public let keys: Float
        public let values: Float
        /// Of `q · k` before softmax; nil without queries.
        public let scores: Float?
        /// Of the attention output; nil without queries.
        public let attention: Float?

        public init(keys: Float, values: Float, scores: Float?, attention: Float?) {
            self.keys = keys
            self.values = values
            self.scores = scores
            self.attention = attention
        }
    }

    /// Whether all numbers are finite, as a snapshot needs them; a cache with infinities or NaN has others.
    public var isFinite: Bool {
        (layers + [total]).allSatisfy { errors in
            [errors.keys, errors.values, errors.scores ?? 0, errors.attention ?? 0].allSatisfy(\.isFinite)
        }
    }

    /// Layer by layer.
    public let layers: [Errors]
    /// Over all layers together.
    public let total: Errors

    public init(layers: [Errors], total: Errors) {
        self.layers = layers
        self.total = total
    }
}
