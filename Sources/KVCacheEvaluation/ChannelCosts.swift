internal import KVCacheModel

/// What an error of each channel costs, in units in which the mean over all channels of a model's cache is 1.
///
/// Source: Formats/profile.md, "How bases are made".
struct ChannelCosts {
    /// By layer: KV head by KV head, as in `LayerProfile`.
    private var keys: [[Double]]
    private var turnedKeys: [[Double]]
    private var values: [[Double]]
    private let geometry: CacheGeometry
    /// The mean sensitivity of all channels that sensitivities were given of: the unit.
    let mean: Double

    /// The least sensitivity of a channel, as a share of the mean of those that it shares a basis with, and of all.
    private static let leastShare = 1e-4
    private static let leastOfAll = 1e-8

    /// - Parameters:
    ///   - keys: sensitivities of keys after rotary embedding, by layer; none of layers that nobody asks for.
    ///   - values: those of values.
    ///   - squaredCosines: by layer the mean, over positions, of each rotary pair's squared cosine.
    init(keys: [[Double]], values: [[Double]], squaredCosines: [[Double]], geometry: CacheGeometry) {
        let turned = geometry.layers.indices.map { layer in
            Self.beforeRotation(
                keys[layer],
                squaredCosines: squaredCosines[layer],
                dimension: geometry.layers[layer].keyDimension
            )
        }
        let all = (turned + values).joined()
        let mean = all.reduce(0, +) / Double(max(all.count, 1))
        self.mean = mean
        func inUnits(_ numbers: [[Double]]) -> [[Double]] {
            numbers.map { $0.map { mean > 0 ? $0 / mean : 1 } }
        }
        self.keys = inUnits(keys)
        turnedKeys = inUnits(turned)
        self.values = inUnits(values)
        self.geometry = geometry
    }

    /// Sensitivities of keys before rotary embedding by those after it: an error of a channel before is, after it, one of
    /// the channel and of its partner, by the squares of cosine and sine.
    ///
    /// - Parameters:
    ///   - sensitivities: head by head.
    ///   - squaredCosines: of each rotary pair.
    static func beforeRotation(_ sensitivities: [Double], squaredCosines: [Double], dimension: Int) -> [Double] {
        var result = sensitivities
        let pairs = squaredCosines.count
        for head in 0..<(dimension > 0 ? sensitivities.count / dimension : 0) {
            for (pair, cosine) in squaredCosines.enumerated() {
                let (one, other) = (head * dimension + pair, head * dimension + pairs + pair)
                result[one] = cosine * sensitivities[one] + (1 - cosine) * sensitivities[other]
                result[other] = cosine * sensitivities[other] + (1 - cosine) * sensitivities[one]
            }
        }
        return result
    }

    /// The costs to the power 3/4: for components of a few bits, whose errors are so large that the small costs, which hold
    /// for small errors, say too little.
    func softened() -> ChannelCosts {
        func softened(_ numbers: [[Double]]) -> [[Double]] {
            numbers.map { $0.map { $0.squareRoot() * $0.squareRoot().squareRoot() } }
        }
        var result = self
        (result.keys, result.turnedKeys, result.values) = (softened(keys), softened(turnedKeys), softened(values))
        return result
    }

    /// The square roots of the sensitivities of a unit's channels, in its order.
    ///
    /// - Parameter areTurned: whether keys are those before rotary embedding.
    func weights(of unit: ArchiveUnit, areTurned: Bool) -> [Float] {
        let sensitivities = unit.layers.flatMap { layer in
            unit.parts.flatMap { part in
                let dimension = geometry.layers[layer].dimension(part)
                let numbers = part == .values ? values : areTurned ? turnedKeys : keys
                return numbers[layer][unit.heads.lowerBound * dimension..<unit.heads.upperBound * dimension]
            }
        }
        let mean = sensitivities.reduce(0, +) / Double(sensitivities.count)
        let least = max(Self.leastShare * mean, Self.leastOfAll)
        return sensitivities.map { Float(max($0, least).squareRoot()) }
    }
}
