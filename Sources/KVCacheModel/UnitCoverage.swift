/// Which keys and values of a cache units have so far: each KV head's belong to one.
package struct UnitCoverage {
    private let geometry: CacheGeometry
    /// By layer, then KV head and part.
    private var covered: [[Bool]]

    package init(_ geometry: CacheGeometry) {
        self.geometry = geometry
        covered = geometry.layers.map { [Bool](repeating: false, count: 2 * $0.kvHeads) }
    }

    private func place(_ part: CachePart, head: Int) -> Int { 2 * head + (part == .keys ? 0 : 1) }

    private func text(_ part: CachePart, layer: Int, head: Int) -> String {
        "the \(part) of layer \(layer), KV head \(head)"
    }

    /// Adds a unit.
    ///
    /// - Returns: what is wrong with it, as the end of a sentence about it, or nil.
    package mutating func add(_ unit: ArchiveUnit) -> String? {
        guard unit.layers.upperBound <= geometry.layers.count,
            unit.layers.allSatisfy({ unit.heads.upperBound <= geometry.layers[$0].kvHeads })
        else { return "has layers or KV heads that the cache hasn't" }
        for layer in unit.layers {
            for head in unit.heads {
                for part in unit.parts {
                    if covered[layer][place(part, head: head)] {
                        return "has \(text(part, layer: layer, head: head)), which another unit has"
                    }
                    covered[layer][place(part, head: head)] = true
                }
            }
        }
        return nil
    }

    /// The first keys or values that no unit has, or nil.
    package var missing: String? {
        for (layer, shape) in geometry.layers.enumerated() {
            for head in 0..<shape.kvHeads {
                for part in CachePart.allCases
                where shape.dimension(part) > 0 && !covered[layer][place(part, head: head)] {
                    return text(part, layer: layer, head: head)
                }
            }
        }
        return nil
    }
}
