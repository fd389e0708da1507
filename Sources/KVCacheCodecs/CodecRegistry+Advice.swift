extension CodecRegistry {
    /// What a recipe of these codecs does, and what it needs of a cache, in lines for people.
    public func advice(for recipe: Recipe) -> String {
        var lines: [String] = []
        if let preset = preset(of: recipe.description) {
            lines.append("\(preset.name), \(preset.recipe): \(preset.help).")
        }
        lines += recipe.steps.map { "\($0.codec.name): \($0.codec.help)." }
        let windows = recipe.steps.compactMap(\.stage.observationWindow)
        if let window = windows.max() {
            lines.append("Looks at the prompt's last \(window) queries; give the cache so many, or as many as it has.")
        }
        if recipe.modelStatistics.contains(.accumulatedAttention) {
            lines.append("Looks at the attention that tokens got from all queries, where it was added up.")
        }
        if recipe.modelStatistics.contains(.outputWeights) {
            lines.append("Looks at the norms of the output projection's columns, where they are known.")
        }
        if recipe.tokenSelection != nil {
            lines.append("Drops tokens: the cache can be used as a whole, and not cut to a prefix.")
        }
        if recipe.needsWholeCache { lines.append("Looks at all layers first, so all are in memory in full precision.") }
        let fullPrecision = [
            recipe.residualWindow > 0 ? "the last \(recipe.residualWindow) tokens" : nil,
            recipe.sinks > 0 ? "the first \(recipe.sinks)" : nil,
        ].compactMap { $0 }
        if !fullPrecision.isEmpty {
            lines.append("Keeps \(fullPrecision.joined(separator: " and ")) in full precision.")
        }
        return lines.joined(separator: "\n")
    }
}
