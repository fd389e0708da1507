internal import Foundation
internal import ThinkCompress

/// What `profile` and `inspect` say about a profile's bases: Formats/json.md.
struct BasesReport: Encodable {
    /// How many components carry most of the weighted variance of those that are there.
    struct Components: Encodable {
        let of50: Int
        let of90: Int
        let of99: Int

        /// - Parameter variances: of the components, in any order.
        init(_ variances: [Float]) {
            let falling = variances.sorted(by: >)
            let total = falling.reduce(0) { $0 + Double($1) }
            func count(_ share: Double) -> Int {
                var sum = 0.0
                for (index, variance) in falling.enumerated() {
                    sum += Double(variance)
                    if sum >= share * total { return index + 1 }
                }
                return falling.count
            }
            (of50, of90, of99) = (count(0.5), count(0.9), count(0.99))
        }
    }

    struct Unit: Encodable {
        let firstLayer: Int
        let layers: Int
        let firstHead: Int
        let kvHeads: Int
        /// `keys`, `values` or `both`.
        let parts: String
        let channels: Int
        let components: Int
        /// The sum over components.
        let variance: Double
        let most: Components

        init(_ archive: LayerBases.Archive) {
            let unit = archive.unit
            firstLayer = unit.layers.lowerBound
            layers = unit.layers.count
            firstHead = unit.heads.lowerBound
            kvHeads = unit.heads.count
            parts = unit.parts.count == 2 ? "both" : unit.hasKeys ? "keys" : "values"
            channels = archive.basis.channelCount
            components = archive.basis.componentCount
            variance = archive.basis.variances.reduce(0) { $0 + Double($1) }
            most = Components(archive.basis.variances)
        }
    }

    let channels: Int
    let components: Int
    /// Of the tensors, archives' and those of use in place.
    let archiveBytes: Int
    let inPlaceBytes: Int
    /// The SHA-256 digest of what archives are restored by, in hex.
    let archiveDigest: String
    /// Of all units together.
    let most: Components
    let units: [Unit]

    /// Units of a table at most: of more only all together are shown.
    private static let mostRows = 128

    /// Nil where the profile has no bases.
    init?(_ profile: [LayerProfile]) {
        guard let digest = LayerBases.archiveDigest(of: profile) else { return nil }
        func byteCount(_ bases: [ComponentBasis]) -> Int {
            bases.reduce(0) { $0 + $1.matrix.count + (2 * $1.componentCount + $1.channelCount) * 4 }
        }
        let layers = profile.compactMap(\.bases)
        let archives = layers.flatMap(\.archives)
        units = archives.map(Unit.init)
        channels = units.reduce(0) { $0 + $1.channels }
        components = units.reduce(0) { $0 + $1.components }
        archiveBytes =
            byteCount(archives.map(\.basis)) + archives.reduce(0) { $0 + $1.unit.numbers.count * 4 }
            + layers.reduce(0) { $0 + $1.rotaryFrequencies.count * 4 }
        inPlaceBytes = byteCount(layers.flatMap { $0.keys + $0.values })
        archiveDigest = digest.map { String(format: "%02x", $0) }.joined()
        most = Components(archives.flatMap(\.basis.variances))
    }

    /// The report for a person.
    var text: String {
        let summary =
            "bases: \(units.count) units, \(components) of \(channels) components, \(archiveBytes) bytes for archives, "
            + "\(inPlaceBytes) for use in place; \(most.of50), \(most.of90) and \(most.of99) components carry 50, 90 and "
            + "99 % of the weighted variance"
        guard units.count <= Self.mostRows else { return summary }
        var table = TextTable(header: ["layers", "KV heads", "parts", "components", "50 %", "90 %", "99 %", "variance"])
        for unit in units {
            let most = unit.most
            table.add(
                [
                    Self.range(unit.firstLayer, unit.layers), Self.range(unit.firstHead, unit.kvHeads), unit.parts,
                    "\(unit.components) of \(unit.channels)",
                ] + [most.of50, most.of90, most.of99].map { "\($0)" } + [String(format: "%.3g", unit.variance)]
            )
        }
        return summary + "\n\n" + table.text
    }

    private static func range(_ first: Int, _ count: Int) -> String {
        count == 1 ? "\(first)" : "\(first)-\(first + count - 1)"
    }
}
