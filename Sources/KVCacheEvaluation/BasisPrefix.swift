internal import KVCacheModel

/// A prefix that bases are made from: which of its tokens the rows of its layers are.
struct BasisPrefix {
    /// What it is called in errors; nil for one of a text.
    let path: String?
    private let tokenCount: Int
    private let positions: [Int32]?
    /// Rows of each layer: all tokens, or the last ones.
    private let rowCounts: [Int]

    /// One that all layers have all tokens of.
    init(tokenCount: Int, layers: Int) {
        path = nil
        self.tokenCount = tokenCount
        positions = nil
        rowCounts = [Int](repeating: tokenCount, count: layers)
    }

    /// That of a cache whose layers have all tokens or the last ones.
    init(_ cache: KVCache, path: String) {
        self.path = path
        tokenCount = cache.tokenCount
        positions = cache.positions
        rowCounts = cache.layers.map(\.keys.tokens)
    }

    /// The positions of a layer's rows.
    func positions(ofLayer layer: Int) -> [Int] {
        let tokens = tokenCount - rowCounts[layer]..<tokenCount
        guard let positions else { return Array(tokens) }
        return positions[tokens].map { Int($0) }
    }

    /// Whether layers have the same tokens.
    func haveSameRows(_ one: Int, _ other: Int) -> Bool { rowCounts[one] == rowCounts[other] }

    /// A layer's rows without the first tokens, which are attention sinks.
    func rows(ofLayer layer: Int) -> Range<Int> {
        let count = rowCounts[layer]
        return min(count == tokenCount ? ProfileSettings.firstTokens : 0, count)..<count
    }

    /// The rows whose positions count where sensitivities are turned: those that may have errors.
    func countedRows(ofLayer layer: Int) -> Range<Int> {
        let rows = rows(ofLayer: layer)
        let last = rows.upperBound - ProfileSettings.lastTokens
        return rows.lowerBound..<(last > rows.lowerBound ? last : rows.upperBound)
    }

    /// The error that says so of it.
    func error(_ message: String) -> EvaluationError { EvaluationError(path: path, message) }

    /// Checks that layers have enough tokens for a variance.
    ///
    /// - Throws: `EvaluationError` if one doesn't.
    func check(_ geometry: CacheGeometry) throws(EvaluationError) {
        for (layer, shape) in geometry.layers.enumerated() where !shape.isEmpty && rows(ofLayer: layer).count < 2 {
            throw error(
                "layer \(layer) has \(rowCounts[layer]) tokens, and bases take at least \(ProfileSettings.firstTokens + 2)"
            )
        }
    }
}
