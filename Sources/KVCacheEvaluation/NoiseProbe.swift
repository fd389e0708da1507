internal import ComputeRuntime
internal import Foundation
internal import KVCacheModel

/// What carries noise at a time: keys or values of a layer, of one KV head of it, or of a band of its rotary pairs.
struct NoiseProbe: Codable, Sendable, Hashable {
    let layer: Int
    let isOfKeys: Bool
    /// Nil for all of the layer.
    let head: Int?
    /// Nil for all channels.
    let band: Int?

    /// The probes of a layer.
    static func all(layer: Int, geometry: LayerGeometry, effort: ProfileSettings.Effort) -> [NoiseProbe] {
        if geometry.isEmpty || effort == .queries { return [] }
        let heads: [Int?] = effort == .layers ? [nil] : Array(0..<geometry.kvHeads)
        let pairs = geometry.keyDimension / 2
        let bandCount = (pairs + ProfileSettings.bandPairs - 1) / ProfileSettings.bandPairs
        // An odd dimension has no pairs.
        let hasBands = effort == .bands && geometry.keyDimension.isMultiple(of: 2)
        let bands: [Int?] = hasBands ? Array(0..<bandCount) : [nil]
        return heads.flatMap { head in
            bands.map { NoiseProbe(layer: layer, isOfKeys: true, head: head, band: $0) }
                + [NoiseProbe(layer: layer, isOfKeys: false, head: head, band: nil)]
        }
    }

    /// The share of a channel's standard deviation that the noise has.
    var share: Double { band == nil ? 0.3 : 0.5 }

    /// The channels that carry noise, as `head * dimension + channel`.
    func channels(_ geometry: LayerGeometry) -> [Int] {
        let dimension = isOfKeys ? geometry.keyDimension : geometry.valueDimension
        let heads = head.map { $0..<$0 + 1 } ?? 0..<geometry.kvHeads
        return heads.flatMap { head in
            inBand(dimension).map { head * dimension + $0 }
        }
    }

    private func inBand(_ dimension: Int) -> [Int] {
        guard let band else { return Array(0..<dimension) }
        let half = dimension / 2
        let first = band * ProfileSettings.bandPairs
        let pairs = first..<min(first + ProfileSettings.bandPairs, half)
        // A pair is a channel of each half.
        return Array(pairs) + pairs.map { half + $0 }
    }

    /// How what is measured is spread over the channels, all of the layer's: by how much each should matter.
    ///
    /// - Parameters:
    ///   - squares: the layer's mean squared queries.
    ///   - outputs: the layer's squared output weights, by value channel.
    func weights(squares: [Double], outputs: [Double]) -> [Double] {
        if isOfKeys { return band == nil ? squares : squares.map { $0.squareRoot() } }
        return head == nil ? outputs : outputs.map { _ in 1 }
    }

    /// What the noise follows from, another number for every probe and prefix.
    func random(seed: UInt64, prefix: Int) -> SplitMix64 {
        let numbers = [prefix, layer, isOfKeys ? 0 : 1, (head ?? -1) + 1, (band ?? -1) + 1]
        // Each number is less than the next factor, so that no two probes share theirs.
        let name = zip(numbers, [1, 4096, 2, 1025, 1025]).reduce(0) { $0 * $1.1 + $1.0 }
        var mixer = SplitMix64(seed: seed ^ UInt64(name) &* 0xD6E8_FEB8_6659_FD93)
        return SplitMix64(seed: mixer.next())
    }
}

extension SplitMix64 {
    /// Two independent numbers of a Gaussian of mean 0 and variance 1: Box and Muller's.
    mutating func nextGaussians() -> (Double, Double) {
        // From above 0 to 1.
        let radius = (-2 * log(1 - nextFraction())).squareRoot()
        let angle = 2 * Double.pi * nextFraction()
        return (radius * cos(angle), radius * sin(angle))
    }
}
