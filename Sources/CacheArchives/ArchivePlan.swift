public import KVCacheModel

/// What the bytes of an archive mean: Formats/archive.md, "ARCHIVE PLAN".
///
/// A vector of a unit's channels `x` is coded as whole numbers `i`, one for each component:
///
///     y[k] = step / 2^shift * i[k]
///
/// from which the unit's basis gives `x` back. `shift` is the token's.
public struct ArchivePlan: Sendable, Equatable {
    /// How a unit's components and its channels belong together.
    public enum Basis: Sendable, Equatable {
        /// The profile's basis of that unit.
        case profile
        /// A component is a channel less its mean, times its weight.
        case channels(weights: [Float])
    }

    /// The channels that are coded together.
    public struct Unit: Sendable, Equatable {
        public let unit: ArchiveUnit
        public let basis: Basis
        public let componentCount: Int
        /// The means of the channels, numbers of float16.
        public let means: [Float]

        public init(unit: ArchiveUnit, basis: Basis, componentCount: Int, means: [Float]) {
            self.unit = unit
            self.basis = basis
            self.componentCount = componentCount
            self.means = means
        }
    }

    /// Places of a chunk, each of which is decoded by itself.
    public static let chunkPlaces = 1024
    /// How many halvings of the step a token may have.
    public static let shifts = 0...3
    /// Steps that a plan may have.
    public static let steps: ClosedRange<Float> = 0x1p-40...0x1p40
    /// Bytes of the digest that names a profile's bases.
    public static let digestBytes = 32

    public let step: Float
    /// What angle each rotary pair of a layer's keys was turned by per position before they were coded, turned back: none
    /// where keys are coded as they are cached.
    public let rotaryFrequencies: [[Float]]
    /// Every layer's keys and values are in one unit.
    public let units: [Unit]
    /// SHA-256 of the profile's bases, if a unit uses one: Formats/profile.md, "Bases".
    public let basisDigest: [UInt8]?

    /// A plan that keeps the rules.
    ///
    /// - Throws: `ArchiveError` for the first that is broken.
    public init(
        step: Float,
        rotaryFrequencies: [[Float]],
        units: [Unit],
        basisDigest: [UInt8]?,
        geometry: CacheGeometry
    ) throws(ArchiveError) {
        guard Self.steps.contains(step) else {
            throw ArchiveError(.invalidPlan, "the step is \(step), must be from 2^-40 to 2^40")
        }
        guard rotaryFrequencies.count == geometry.layers.count else {
            throw ArchiveError(.invalidPlan, "rotary frequencies of \(rotaryFrequencies.count) layers")
        }
        for (layer, frequencies) in rotaryFrequencies.enumerated() {
            guard 2 * frequencies.count <= geometry.layers[layer].keyDimension,
                frequencies.allSatisfy({ $0.magnitude <= Self.maximumFrequency })
            else {
                throw ArchiveError(
                    .invalidPlan,
                    "\(frequencies.count) rotary frequencies of layer \(layer) are too many, or one is above "
                        + "\(Self.maximumFrequency)"
                )
            }
        }
        try Self.checkCoverage(units.map(\.unit), geometry: geometry)
        for (index, unit) in units.enumerated() {
            let channels = unit.unit.channelCount(in: geometry)
            guard channels <= Self.maximumChannels, (1...channels).contains(unit.componentCount),
                unit.means.count == channels
            else {
                throw ArchiveError(
                    .invalidPlan,
                    "unit \(index) has \(unit.componentCount) components and \(unit.means.count) means for \(channels) "
                        + "channels, of which there may be \(Self.maximumChannels)"
                )
            }
            guard unit.means.allSatisfy(\.isFinite) else {
                throw ArchiveError(.invalidPlan, "a mean of unit \(index) is not finite")
            }
            switch unit.basis {
            case .profile:
                guard basisDigest != nil else {
                    throw ArchiveError(.invalidPlan, "unit \(index) has a basis of a profile that isn't named")
                }
            case .channels(let weights):
                guard weights.count == channels, unit.componentCount == channels,
                    weights.allSatisfy({ Self.weights.contains($0) })
                else { throw ArchiveError(.invalidPlan, "weights of unit \(index) are not those of its channels") }
            }
        }
        self.step = step
        self.rotaryFrequencies = rotaryFrequencies
        self.units = units
        self.basisDigest = basisDigest
    }

    /// Channels of a unit at the most.
    public static let maximumChannels = ArchiveUnit.maximumChannels
    /// Radians per position at the most.
    public static let maximumFrequency: Float = 4
    /// Weights of channels.
    public static let weights: ClosedRange<Float> = 0x1p-60...0x1p60

    /// Checks that units have every layer's heads and parts once.
    ///
    /// - Throws: `ArchiveError` for the first that is outside, comes twice or is missing.
    public static func checkCoverage(_ units: [ArchiveUnit], geometry: CacheGeometry) throws(ArchiveError) {
        var coverage = UnitCoverage(geometry)
        for (index, unit) in units.enumerated() {
            if let fault = coverage.add(unit) { throw ArchiveError(.invalidPlan, "unit \(index) \(fault)") }
        }
        if let missing = coverage.missing { throw ArchiveError(.invalidPlan, "no unit has \(missing)") }
    }

    /// Layers that are to be restored together: those that units join, from the first on.
    public var layerGroups: [Range<Int>] {
        var groups: [Range<Int>] = []
        var end = 0
        for unit in units.map(\.unit).sorted(by: { $0.layers.lowerBound < $1.layers.lowerBound }) {
            if unit.layers.lowerBound < end {
                end = max(end, unit.layers.upperBound)
                groups[groups.count - 1] = groups[groups.count - 1].lowerBound..<end
            } else {
                // Layers between have no keys and values.
                for layer in end..<unit.layers.lowerBound { groups.append(layer..<layer + 1) }
                end = unit.layers.upperBound
                groups.append(unit.layers)
            }
        }
        for layer in end..<max(rotaryFrequencies.count, end) { groups.append(layer..<layer + 1) }
        return groups
    }
}
