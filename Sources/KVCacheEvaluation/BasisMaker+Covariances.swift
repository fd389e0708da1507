internal import ByteStorage
internal import KVCacheModel

// The vectors of units and KV heads, and their covariances.

extension BasisMaker {
    /// What covariances are made of for a run: KV heads first, of which it is said more exactly what is wrong with them.
    ///
    /// - Throws: `MemoryError` if there is no memory for them.
    func groups(of run: Run) throws(MemoryError) -> [Group] {
        func group(_ unit: ArchiveUnit, isOfArchive: Bool) throws(MemoryError) -> Group {
            let covariance = try VectorCovariance(channelCount: unit.channelCount(in: geometry))
            return Group(unit: unit, isOfArchive: isOfArchive, covariance: covariance)
        }
        var groups: [Group] = []
        for layer in run.layers {
            for part in CachePart.allCases where geometry.layers[layer].dimension(part) > 0 {
                for head in 0..<geometry.layers[layer].kvHeads {
                    let unit = ArchiveUnit(
                        layers: layer..<layer + 1,
                        heads: head..<head + 1,
                        hasKeys: part == .keys,
                        hasValues: part == .values
                    )
                    groups.append(try group(unit, isOfArchive: false))
                }
            }
        }
        for unit in run.units { groups.append(try group(unit, isOfArchive: true)) }
        return groups
    }

    /// Adds a prefix's layers, those of the run.
    ///
    /// - Throws: `EvaluationError` if they have numbers that are not finite, or too large; `MemoryError`, `CancellationError`.
    func add(_ layers: [KVCacheLayer], of prefix: BasisPrefix, to groups: [Group], run: Run) throws {
        let first = run.layers.lowerBound
        var turns: [RotaryTurns] = []
        for layer in run.layers {
            // Layers are mostly like the one before.
            if layer > first, frequencies[layer] == frequencies[layer - 1], prefix.haveSameRows(layer - 1, layer) {
                turns.append(turns[layer - first - 1])
            } else {
                let positions = prefix.positions(ofLayer: layer)
                turns.append(RotaryTurns(positions: positions, frequencies: frequencies[layer]))
            }
        }
        for group in groups {
            try Task.checkCancellation()
            let vectors = try vectors(of: group, layers: layers, first: first, prefix: prefix, turns: turns)
            guard try group.covariance.add(vectors) else {
                let what = "layer \(group.unit.layers.lowerBound) has \(group.unit.parts.names)"
                throw prefix.error("\(what) that are not finite, or too large; bases need others")
            }
        }
    }

    /// A group's vectors, `[tokens][channels]`.
    ///
    /// - Parameters:
    ///   - layers: those of the run, from layer `first` on.
    ///   - turns: of the layers.
    private func vectors(
        of group: Group,
        layers: [KVCacheLayer],
        first: Int,
        prefix: BasisPrefix,
        turns: [RotaryTurns]
    ) throws(MemoryError) -> DoubleBuffer {
        let unit = group.unit
        let width = unit.channelCount(in: geometry)
        let count = unit.layers.reduce(Int.max) { min($0, prefix.rows(ofLayer: $1).count) }
        let vectors = try DoubleBuffer(count: count * width)
        var column = 0
        for layer in unit.layers {
            for part in unit.parts {
                let tensor = layers[layer - first][part]
                let dimension = tensor.headDimension
                let start = tensor.tokens - count
                for head in unit.heads {
                    let rows = unsafe [Float](unsafeUninitializedCapacity: count * dimension) { buffer, filled in
                        if let base = buffer.baseAddress {
                            unsafe tensor.widenRows(head: head, from: start, count: count, into: base)
                        }
                        filled = count * dimension
                    }
                    for row in 0..<count {
                        let target = unsafe vectors.pointer(from: row * width + column)
                        for channel in 0..<dimension {
                            unsafe target[channel] = Double(rows[row * dimension + channel])
                        }
                        if part == .keys, group.isOfArchive {
                            unsafe turns[layer - first].undo(target, row: start + row)
                        }
                    }
                    column += dimension
                }
            }
        }
        return vectors
    }
}
