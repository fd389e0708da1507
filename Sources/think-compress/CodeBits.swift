internal import ThinkCompress

/// The mean width of a layer's codes in blocks, over KV heads and channels, without scales, as its plan says.
struct CodeBits: Encodable {
    /// Pruned channels, and components that blocks don't have, count as 0 bits, full precision as 16 or 32; nil in layers without keys or values.
    let keys: Double?
    let values: Double?

    init(_ plan: LayerPlan, elementType: ElementType) {
        func width(_ coding: Coding) -> Int {
            coding.isFullPrecision ? elementType.byteCount * 8 : coding.width
        }
        func bits(_ plan: ComponentPlan) -> Int { plan.runs.reduce(0) { $0 + $1.coding.width * $1.count } }
        let keyBits = plan.heads.reduce(0) { sum, head in
            if let components = head.components { return sum + bits(components.keys) }
            return head.keyRuns.reduce(sum) { $0 + width($1.coding) * $1.channels.count }
        }
        let valueBits = plan.heads.reduce(0) { sum, head in
            if let components = head.components { return sum + (components.values.map(bits) ?? 0) }
            return sum + width(head.values) * head.keptValueChannelCount
        }
        func mean(_ bits: Int, of channels: Int) -> Double? { channels > 0 ? Double(bits) / Double(channels) : nil }
        keys = mean(keyBits, of: plan.heads.reduce(0) { $0 + $1.keyDimension })
        values = mean(valueBits, of: plan.heads.reduce(0) { $0 + $1.valueDimension })
    }

    /// The bits of all layers for a person: the least and the most of each; nil where every number has as many.
    static func text(_ layers: [CodeBits]) -> String? {
        let parts = [("keys", layers.compactMap(\.keys)), ("values", layers.compactMap(\.values))]
        let isUniform = parts.allSatisfy { _, bits in Set(bits).count <= 1 && bits.allSatisfy(\.isWhole) }
        if isUniform { return nil }
        return parts.compactMap { name, bits in
            guard let least = bits.min(), let most = bits.max() else { return nil }
            return least == most ? "\(name) \(least.fixed(2))" : "\(name) \(least.fixed(2))...\(most.fixed(2)) by layer"
        }.joined(separator: ", ")
    }
}

extension Double {
    fileprivate var isWhole: Bool { self == rounded() }
}
