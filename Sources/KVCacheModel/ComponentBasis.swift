public import ByteStorage

/// A basis in which errors of equal size cost the same: it turns the channels of a vector into components.
///
/// A vector `x` of channels is restored from its components `y`, channel by channel, as
///
///     x[c] = mean[c] + (sum over components k of matrix[k][c] * scales[k] * y[k]) / weights[c]
///
/// with the mean of the prompt's own vectors. Components come in order of falling variance. There may be fewer of them
/// than channels. Source: Formats/profile.md, "Bases".
public struct ComponentBasis: Sendable {
    /// What scales and weights of a profile's bases are within.
    public static let positiveNumbers: ClosedRange<Float> = 0x1p-60...0x1p60

    /// Channels of a vector.
    public var channelCount: Int { weights.count }
    /// Components of a vector, at most as many as channels.
    public var componentCount: Int { scales.count }
    /// `[componentCount][channelCount]` signed bytes.
    public let matrix: SharedBytes
    /// What a component's row of the matrix is multiplied by: finite and positive.
    public let scales: [Float]
    /// The variance of each component over the prefixes that the basis was made from, not negative.
    public let variances: [Float]
    /// The square roots of the channels' sensitivities, in units in which the mean sensitivity of all channels of the
    /// model's cache is 1: finite and positive.
    public let weights: [Float]

    /// - Parameter matrix: a byte for each component and channel.
    public init(matrix: SharedBytes, scales: [Float], variances: [Float], weights: [Float]) {
        precondition(
            matrix.count == scales.count * weights.count && variances.count == scales.count
                && scales.count <= weights.count,
            "a basis has a row for each component, and not more of them than channels"
        )
        self.matrix = matrix
        self.scales = scales
        self.variances = variances
        self.weights = weights
    }
}

extension ComponentBasis: Equatable {
    public static func == (left: ComponentBasis, right: ComponentBasis) -> Bool {
        left.scales == right.scales && left.variances == right.variances && left.weights == right.weights
            && left.matrix.hasSameBytes(as: right.matrix)
    }
}

extension SharedBytes {
    fileprivate func hasSameBytes(as other: SharedBytes) -> Bool {
        unsafe withUnsafeBytes { left in
            unsafe other.withUnsafeBytes { right in unsafe left.elementsEqual(right) }
        }
    }
}

/// The channels that an archive turns into components together: keys, values or both of some KV heads of some layers.
///
/// Its vector has, layer by layer, the keys of its heads, then the values of its heads, each head's channels in order.
public struct ArchiveUnit: Sendable, Hashable {
    /// Channels that a unit may have: more would be more than a matrix of their covariance can be made of.
    public static let maximumChannels = 1 << 14

    public let layers: Range<Int>
    public let heads: Range<Int>
    public let hasKeys: Bool
    public let hasValues: Bool

    public init(layers: Range<Int>, heads: Range<Int>, hasKeys: Bool, hasValues: Bool) {
        precondition(!layers.isEmpty && !heads.isEmpty && (hasKeys || hasValues), "a unit has channels")
        self.layers = layers
        self.heads = heads
        self.hasKeys = hasKeys
        self.hasValues = hasValues
    }

    /// A unit by its numbers in files: first layer, layers, first KV head, KV heads, and parts (1 keys, 2 values, 3 both).
    ///
    /// - Returns: nil if they are not those of a unit.
    public init?(numbers: [Int]) {
        guard numbers.count == 5, (0..<CacheGeometry.Limits.layers.upperBound).contains(numbers[0]),
            CacheGeometry.Limits.layers.contains(numbers[1]),
            (0..<CacheGeometry.Limits.kvHeads.upperBound).contains(numbers[2]),
            CacheGeometry.Limits.kvHeads.contains(numbers[3]), (1...3).contains(numbers[4])
        else { return nil }
        self.init(
            layers: numbers[0]..<numbers[0] + numbers[1],
            heads: numbers[2]..<numbers[2] + numbers[3],
            hasKeys: numbers[4] & 1 != 0,
            hasValues: numbers[4] & 2 != 0
        )
    }

    /// Its numbers in files, as `init(numbers:)` takes them.
    public var numbers: [Int] {
        [layers.lowerBound, layers.count, heads.lowerBound, heads.count, (hasKeys ? 1 : 0) + (hasValues ? 2 : 0)]
    }

    /// The parts of the cache that it has, in order.
    public var parts: [CachePart] { (hasKeys ? [.keys] : []) + (hasValues ? [.values] : []) }

    /// Channels of its vector in a cache of this shape, which has its layers and heads.
    public func channelCount(in geometry: CacheGeometry) -> Int {
        layers.reduce(0) { sum, layer in
            sum + parts.reduce(0) { $0 + heads.count * geometry.layers[layer].dimension($1) }
        }
    }
}

/// The bases of a layer, from the model's profile.
public struct LayerBases: Sendable, Equatable {
    /// Radians per position of a profile's rotary frequencies, at the most.
    public static let maximumFrequency: Float = 4

    /// A unit of archives and its basis, of keys before rotary embedding.
    public struct Archive: Sendable, Equatable {
        public let unit: ArchiveUnit
        public let basis: ComponentBasis

        public init(unit: ArchiveUnit, basis: ComponentBasis) {
            self.unit = unit
            self.basis = basis
        }
    }

    /// The units whose first layer this is.
    public let archives: [Archive]
    /// What angle, in radians, each rotary pair of the layer's keys is turned by per position: pair i is the channels i and
    /// i + the number of pairs. Channels from twice that number on aren't turned. Empty without rotary embedding.
    public let rotaryFrequencies: [Float]
    /// Of each KV head's keys as they are cached, after rotary embedding; empty if the profile has none.
    public let keys: [ComponentBasis]
    /// Of each KV head's values; empty if the profile has none, or the layer has no values.
    public let values: [ComponentBasis]

    public init(
        archives: [Archive],
        rotaryFrequencies: [Float],
        keys: [ComponentBasis] = [],
        values: [ComponentBasis] = []
    ) {
        self.archives = archives
        self.rotaryFrequencies = rotaryFrequencies
        self.keys = keys
        self.values = values
    }
}
