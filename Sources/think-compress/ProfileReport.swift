internal import Foundation
internal import ThinkCompress

/// What `profile` and `inspect` say about a model's profile: Formats/json.md.
struct ProfileReport: Encodable {
    struct Layer: Encodable {
        let layer: Int
        let kvHeads: Int
        let keyDim: Int
        /// Unknown where nothing is said of values.
        let valueDim: Int?
        /// The mean over KV heads and channels.
        let meanSquaredQuery: Double
        /// The sums over KV heads and channels: nats for a mean squared error of 1 in each.
        let keySensitivity: Double?
        let valueSensitivity: Double?
        /// The mean over KV heads and channels.
        let valueVariance: Double?
        /// The mean over KV heads and channels.
        let outputWeight: Double?

        init(_ profile: LayerProfile, index: Int, geometry: LayerGeometry) {
            func sum(_ numbers: [Float]) -> Double { numbers.reduce(0) { $0 + Double($1) } }
            func mean(_ numbers: [Float]) -> Double { sum(numbers) / Double(max(numbers.count, 1)) }
            layer = index
            kvHeads = geometry.kvHeads
            keyDim = geometry.keyDimension
            let saysValues = profile.sensitivity != nil || profile.outputWeights != nil || profile.bases != nil
            valueDim = saysValues ? geometry.valueDimension : nil
            meanSquaredQuery = mean(profile.meanSquaredQueries)
            keySensitivity = profile.sensitivity.map { sum($0.keys) }
            valueSensitivity = profile.sensitivity.map { sum($0.values) }
            valueVariance = profile.sensitivity.map { mean($0.valueVariances) }
            outputWeight = profile.outputWeights.map(mean)
        }
    }

    let file: String
    let metadata: [String: String]
    /// How many texts it was made of, where the file tells.
    let texts: Int?
    let tokens: Int?
    let layers: Int
    /// Left out where layers differ.
    let kvHeads: Int?
    let headDim: Int?
    let layerProfiles: [Layer]
    let bases: BasesReport?

    init(_ profile: [LayerProfile], geometry: CacheGeometry, metadata: [String: String], path: String) {
        file = path
        self.metadata = metadata
        texts = metadata[ModelProfile.MetadataKey.texts].map { $0.split(separator: ",").count }
        tokens = metadata[ModelProfile.MetadataKey.tokens].flatMap { Int($0) }
        layers = profile.count
        bases = BasesReport(profile)
        layerProfiles = profile.indices.filter { !geometry.layers[$0].isEmpty }.map {
            Layer(profile[$0], index: $0, geometry: geometry.layers[$0])
        }
        let shapes = Set(layerProfiles.map { [$0.kvHeads, $0.keyDim] })
        kvHeads = shapes.count == 1 ? layerProfiles.first?.kvHeads : nil
        headDim = shapes.count == 1 ? layerProfiles.first?.keyDim : nil
    }

    /// The report for a person.
    var text: String {
        var facts = [("file", file)]
        facts += metadata.sorted { $0.key < $1.key }.map { ($0.key.printable, String($0.value.printable.prefix(200))) }
        facts.append(("layers", "\(layers)"))
        if let kvHeads, let headDim { facts.append(("geometry", "\(kvHeads) KV heads of dimension \(headDim)")) }
        let width = facts.map(\.0.count).max() ?? 0
        let list = facts.map { name, value in
            name + String(repeating: " ", count: width - name.count) + "  " + value
        }
        let parts = [
            list.joined(separator: "\n"), sensitivityTable ?? "sensitivities were not measured",
            bases?.text ?? "there are no bases",
        ]
        return parts.joined(separator: "\n\n")
    }

    /// Sensitivities as numbers and bars, nil where there are none.
    private var sensitivityTable: String? {
        let scale = BarScale(layerProfiles.flatMap { [$0.keySensitivity, $0.valueSensitivity].compactMap { $0 } })
        guard let scale, layerProfiles.allSatisfy({ $0.keySensitivity != nil }) else { return nil }
        let numbers = ["layer", "keys", "values"]
        var table = TextTable(header: numbers)
        for layer in layerProfiles {
            table.add(["\(layer.layer)"] + [layer.keySensitivity, layer.valueSensitivity].map(Self.number))
        }
        let lines = table.text.split(separator: "\n")
        let bars =
            [BarScale.padded("keys") + "  values"]
            + layerProfiles.map { layer in
                scale.bar(layer.keySensitivity ?? 0, isPadded: true) + "  "
                    + scale.bar(layer.valueSensitivity ?? 0, isPadded: false)
            }
        return "sensitivity: nats per token for a mean squared error of 1 in every channel (bars: logarithmic, "
            + "\(Self.number(scale.least)) to \(Self.number(scale.most)))\n\n"
            + zip(lines, bars).map { "\($0)  \($1)" }.joined(separator: "\n")
    }

    private static func number(_ value: Double?) -> String { value.map { String(format: "%.2e", $0) } ?? "-" }
}

/// Bars of characters, by the logarithms of numbers above 0.
private struct BarScale {
    private static let length = 24

    let least: Double
    let most: Double

    /// Nil where there is no number above 0.
    init?(_ numbers: [Double]) {
        let known = numbers.filter { $0 > 0 }
        guard let least = known.min(), let most = known.max() else { return nil }
        self.least = least
        self.most = most
    }

    /// A bar of one character for the least number, and of the whole length for the largest; none for 0.
    func bar(_ number: Double, isPadded: Bool) -> String {
        guard number > 0 else { return isPadded ? Self.padded("") : "" }
        let share = most > least ? log(number / least) / log(most / least) : 1
        let bar = String(repeating: "#", count: 1 + Int((share * Double(Self.length - 1)).rounded()))
        return isPadded ? Self.padded(bar) : bar
    }

    static func padded(_ text: String) -> String {
        text + String(repeating: " ", count: max(length - text.count, 0))
    }
}
