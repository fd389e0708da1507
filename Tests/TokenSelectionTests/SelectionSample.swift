import TestSupport
import Testing
import ThinkCompress

/// A layer from a seed, and what plain implementations of the papers keep of it.
struct SelectionSample: Sendable, CustomTestStringConvertible {
    enum Held: Sendable { case all, last, listed }

    var seed: UInt64 = 7
    var type = ElementType.float32
    var held = Held.all
    var queryHeads = 6
    var kvHeads = 2
    var dimension = 16
    var rows = 150
    var tokenCount = 150
    var window = 32

    var testDescription: String {
        "\(queryHeads) and \(kvHeads) heads of \(dimension), \(rows) of \(tokenCount) tokens (\(held)), \(window) queries, "
            + type.name
    }

    func layer() throws -> KVCacheLayer {
        var generator = SplitMix64(seed: seed)
        let geometry = try LayerGeometry(
            queryHeads: queryHeads,
            kvHeads: kvHeads,
            keyDimension: dimension,
            valueDimension: dimension
        )
        let layer = KVCacheLayer.random(geometry, elementType: type, rows: rows, using: &generator)
        let tokens: HeldTokens =
            switch held {
            case .all: .all
            case .last: .last
            case .listed: .random(kvHeads: kvHeads, rows: rows, tokenCount: tokenCount, using: &generator)
            }
        let queries = KVTensor.random(
            elementType: type,
            heads: queryHeads,
            tokens: window,
            headDimension: dimension,
            using: &generator
        )
        return KVCacheLayer(keys: layer.keys, values: layer.values, held: tokens, queries: queries)
    }

    func cache() throws -> KVCache { try KVCache(layers: [layer()], tokenCount: tokenCount) }

    /// The cache compressed by a recipe.
    func compressed(_ recipe: String) async throws -> CompressedLayer {
        try await CompressedCache(compressing: cache(), recipe: Recipe(recipe)).layers[0]
    }

    /// The tokens of a layer's rows, head by head.
    static func tokens(_ layer: KVCacheLayer, of tokenCount: Int) -> [[Int]] {
        guard case .listed(let lists) = layer.held else {
            let tokens = Array(tokenCount - layer.keys.tokens..<tokenCount)
            return [[Int]](repeating: tokens, count: layer.keys.heads)
        }
        return lists.map { $0.map(Int.init) }
    }

    /// The rows of highest score, ascending.
    static func highest(_ scores: [Double], count: Int) -> [Int] {
        scores.indices.sorted { scores[$0] > scores[$1] }.prefix(count).sorted()
    }
}
