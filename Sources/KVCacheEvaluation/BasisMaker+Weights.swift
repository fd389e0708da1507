internal import KVCacheModel

// What errors of channels cost.

extension BasisMaker {
    /// What errors cost, as it was measured; nil where it wasn't.
    func measuredWeights(_ profile: [LayerProfile], squaredCosines: [[Double]]) -> ChannelCosts? {
        let sensitivities = geometry.layers.indices.map { profile[$0].sensitivity }
        guard zip(sensitivities, geometry.layers).allSatisfy({ $0 != nil || $1.isEmpty }) else { return nil }
        return ChannelCosts(
            keys: sensitivities.map { $0?.keys.map { Double($0) } ?? [] },
            values: sensitivities.map { $0?.values.map { Double($0) } ?? [] },
            squaredCosines: squaredCosines,
            geometry: geometry
        )
    }

    /// What errors of a run's layers cost by the channels' variances, in units of their own mean.
    func uniformWeights(
        _ run: Run,
        groups: [Group],
        _ profile: [LayerProfile],
        squaredCosines: [[Double]]
    ) -> ChannelCosts {
        func sensitivities(_ part: CachePart) -> [[Double]] {
            geometry.layers.indices.map { layer in
                let variances = groups.flatMap { group in
                    group.isOfArchive || group.unit.layers.lowerBound != layer || group.unit.parts != [part]
                        ? [] : group.covariance.variances
                }
                return Self.uniform(variances, squaredQueries: part == .keys ? profile[layer].meanSquaredQueries : [])
            }
        }
        return ChannelCosts(
            keys: sensitivities(.keys),
            values: sensitivities(.values),
            squaredCosines: squaredCosines,
            geometry: geometry
        )
    }

    /// Sensitivities of a layer's keys or values of which none were measured.
    ///
    /// - Parameters:
    ///   - variances: of its channels.
    ///   - squaredQueries: those of keys, where known.
    private static func uniform(_ variances: [Double], squaredQueries: [Float]) -> [Double] {
        let mean = variances.reduce(0, +) / Double(max(variances.count, 1))
        let common = mean > 0 ? 1 / mean : 1
        let squares = squaredQueries.map { Double($0) }
        let meanSquare = squares.reduce(0, +) / Double(max(squares.count, 1))
        guard squares.count == variances.count, meanSquare > 0 else { return variances.map { _ in common } }
        return squares.map { common * $0 / meanSquare }
    }

    /// By layer the mean, over positions and prefixes, of each rotary pair's squared cosine.
    func squaredCosines(of prefixes: [BasisPrefix]) -> [[Double]] {
        var means: [[Double]] = []
        for (layer, frequencies) in frequencies.enumerated() {
            // Layers are mostly like the one before.
            if layer > 0, frequencies == self.frequencies[layer - 1],
                prefixes.allSatisfy({ $0.haveSameRows(layer - 1, layer) })
            {
                means.append(means[layer - 1])
                continue
            }
            var sums = [Double](repeating: 0, count: frequencies.count)
            for prefix in prefixes {
                let turns = RotaryTurns(positions: prefix.positions(ofLayer: layer), frequencies: frequencies)
                for (pair, cosine) in turns.meanSquaredCosines(of: prefix.countedRows(ofLayer: layer)).enumerated() {
                    sums[pair] += cosine
                }
            }
            means.append(sums.map { $0 / Double(prefixes.count) })
        }
        return means
    }
}
