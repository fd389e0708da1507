package import ThinkCompress

/// Bases of models from seeds: of no meaning, but of all that a reader checks.
package enum TestBases: Sendable {
    /// A basis of so many components and channels.
    package static func basis(components: Int, channels: Int, generator: inout SplitMix64) -> ComponentBasis {
        let bytes = (0..<components * channels).map { _ in
            UInt8(bitPattern: Int8.random(in: -127...127, using: &generator))
        }
        func numbers(_ count: Int) -> [Float] {
            (0..<count).map { _ in Float.random(in: 0.01..<2, using: &generator) }
        }
        return ComponentBasis(
            matrix: SharedBytes(bytes),
            scales: numbers(components),
            variances: numbers(components).sorted(by: >),
            weights: numbers(channels)
        )
    }

    /// The bases of every layer of a model, a unit for each layer, of which half of the components are left out; all of a
    /// layer's keys are turned.
    package static func layers(of geometry: CacheGeometry, seed: UInt64) -> [LayerBases?] {
        var generator = SplitMix64(seed: seed)
        return geometry.layers.enumerated().map { index, shape in
            if shape.isEmpty { return nil }
            let unit = ArchiveUnit(
                layers: index..<index + 1,
                heads: 0..<shape.kvHeads,
                hasKeys: true,
                hasValues: shape.valueDimension > 0
            )
            let channels = unit.channelCount(in: geometry)
            let archive = basis(components: (channels + 1) / 2, channels: channels, generator: &generator)
            func heads(_ dimension: Int) -> [ComponentBasis] {
                (0..<(dimension > 0 ? shape.kvHeads : 0)).map { _ in
                    basis(components: dimension, channels: dimension, generator: &generator)
                }
            }
            return LayerBases(
                archives: [.init(unit: unit, basis: archive)],
                rotaryFrequencies: (0..<shape.keyDimension / 2).map { 1 / Float(1 + $0) },
                keys: heads(shape.keyDimension),
                values: heads(shape.valueDimension)
            )
        }
    }
}

extension LayerProfile {
    /// The same with bases.
    package func with(_ bases: LayerBases?) -> LayerProfile {
        LayerProfile(
            meanSquaredQueries: meanSquaredQueries,
            sensitivity: sensitivity,
            outputWeights: outputWeights,
            bases: bases
        )
    }
}
