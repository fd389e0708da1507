import ThinkCompress

extension ComponentBasis {
    /// A basis of a dimension that is a power of two: a Hadamard matrix whose columns have random signs, with weights that
    /// fall from one channel to the next.
    ///
    /// - Parameter fall: by what each weight is multiplied to make the next.
    package init(dimension: Int, fall: Float = 0.95, using generator: inout SplitMix64) {
        precondition(dimension & (dimension - 1) == 0, "a Hadamard matrix has a power of two as dimension")
        let signs = (0..<dimension).map { _ in generator.next() & 1 == 0 ? 1 : -1 }
        let matrix = (0..<dimension * dimension).map { index in
            let (component, channel) = index.quotientAndRemainder(dividingBy: dimension)
            let isNegative = (component & channel).nonzeroBitCount % 2 == 1
            return UInt8(bitPattern: Int8((isNegative ? -127 : 127) * signs[channel]))
        }
        var weights: [Float] = [4]
        while weights.count < dimension { weights.append(weights[weights.count - 1] * fall) }
        self.init(
            matrix: SharedBytes(matrix),
            scales: [Float](repeating: 1 / (127 * Float(dimension).squareRoot()), count: dimension),
            variances: (0..<dimension).map { Float(dimension - $0) },
            weights: weights
        )
    }

    /// A basis whose components are the channels, each times a weight that falls from one to the next.
    public init(channels dimension: Int, fall: Float = 0.9) {
        var matrix = [UInt8](repeating: 0, count: dimension * dimension)
        for channel in 0..<dimension { matrix[channel * (dimension + 1)] = 127 }
        var weights: [Float] = [4]
        while weights.count < dimension { weights.append(weights[weights.count - 1] * fall) }
        self.init(
            matrix: SharedBytes(matrix),
            scales: [Float](repeating: 1 / 127, count: dimension),
            variances: [Float](repeating: 1, count: dimension),
            weights: weights
        )
    }
}

extension KVCache {
    /// The same cache with a profile that has bases of all keys and values.
    public func withRandomBases(seed: UInt64 = 1) throws -> KVCache {
        var generator = SplitMix64(seed: seed)
        let layers = layers.map { layer in
            func bases(_ part: CachePart) -> [ComponentBasis] {
                (0..<layer.keys.heads).map { _ in
                    let dimension = layer[part].headDimension
                    return dimension & (dimension - 1) == 0
                        ? ComponentBasis(dimension: dimension, using: &generator) : ComponentBasis(channels: dimension)
                }
            }
            return layer.withProfile(
                LayerProfile(
                    meanSquaredQueries: [Float](repeating: 1, count: layer.keys.heads * layer.keys.headDimension),
                    bases: LayerBases(
                        archives: [],
                        rotaryFrequencies: [],
                        keys: bases(.keys),
                        values: layer.values.headDimension > 0 ? bases(.values) : []
                    )
                )
            )
        }
        return try KVCache(layers: layers, tokens: tokens, positions: positions, metadata: metadata)
    }
}
