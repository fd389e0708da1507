/// What a model's profile says of one layer: Formats/profile.md.
public struct LayerProfile: Sendable, Equatable {
    /// The mean squared query per KV head and channel, `kvHeads * keyDimension` numbers; none for a layer without keys.
    public let meanSquaredQueries: [Float]
    /// What errors of the layer cost; nil where only queries were measured.
    public let sensitivity: LayerSensitivity?
    /// The squared norm of the output projection's column of a value channel, the mean over the query heads of its KV head:
    /// `kvHeads * valueDimension` numbers; nil where it isn't known.
    public let outputWeights: [Float]?
    /// Bases in which errors cost the same in every component; nil where the profile has none.
    public let bases: LayerBases?

    public init(
        meanSquaredQueries: [Float],
        sensitivity: LayerSensitivity? = nil,
        outputWeights: [Float]? = nil,
        bases: LayerBases? = nil
    ) {
        self.meanSquaredQueries = meanSquaredQueries
        self.sensitivity = sensitivity
        self.outputWeights = outputWeights
        self.bases = bases
    }

    /// The profile of a layer without keys and values.
    public static let empty = LayerProfile(meanSquaredQueries: [])

    /// Whether it is of a layer without keys and values.
    public var isEmpty: Bool { self == .empty }
}

/// How much the divergence of a model's predictions grows with errors of one layer's cached keys and values.
///
/// Predictions after a compressed prefix diverge from those after the exact one by about the sum, over all layers and
/// channels, of a channel's sensitivity times its mean squared error over the prefix's tokens, those left out that stay
/// in full precision: in nats per predicted token. Numbers lie as in `LayerProfile`, KV head by KV head.
public struct LayerSensitivity: Sendable, Equatable {
    /// Of keys after rotary embedding: `kvHeads * keyDimension` numbers, not negative.
    public let keys: [Float]
    /// Of values: `kvHeads * valueDimension` numbers, not negative.
    public let values: [Float]
    /// The variance of each value channel about its mean: `kvHeads * valueDimension` numbers.
    public let valueVariances: [Float]

    public init(keys: [Float], values: [Float], valueVariances: [Float]) {
        self.keys = keys
        self.values = values
        self.valueVariances = valueVariances
    }
}

extension LayerProfile {
    /// What is wrong with the profile of a layer of this shape, or nil.
    package func fault(kvHeads: Int, keyDimension: Int, valueDimension: Int) -> String? {
        let parts: [(name: String, numbers: [Float]?, dimension: Int)] = [
            ("a query profile", meanSquaredQueries, keyDimension),
            ("a sensitivity of keys", sensitivity?.keys, keyDimension),
            ("a sensitivity of values", sensitivity?.values, valueDimension),
            ("a variance of values", sensitivity?.valueVariances, valueDimension),
            (Self.outputWeightsName, outputWeights, valueDimension),
        ]
        for (name, numbers, dimension) in parts {
            let fault = numbers.flatMap { Self.fault(name, $0, kvHeads: kvHeads, dimension: dimension) }
            if let fault { return fault }
        }
        return nil
    }

    static let outputWeightsName = "output weights"

    /// What is wrong with numbers that there should be for every KV head and channel, or nil.
    static func fault(_ name: String, _ numbers: [Float], kvHeads: Int, dimension: Int) -> String? {
        guard numbers.count == kvHeads * dimension else {
            return "\(name) of \(numbers.count) numbers for \(kvHeads) KV heads of dimension \(dimension)"
        }
        guard numbers.allSatisfy({ $0.isFinite && $0 >= 0 }) else {
            return "\(name) with numbers below 0 or not finite"
        }
        return nil
    }
}
