import TestSupport
import ThinkCompress

/// Caches with a layer of every kind: all tokens, the last ones, listed ones, none; with values and without; keys and
/// values of other dimensions; state of a layer with keys and of one without.
struct MixedCache {
    var elementType = ElementType.float16
    var tokens = 340
    /// Queries of each layer that has keys, 0 for none.
    var window = 32
    private var generator = SplitMix64(seed: 1)

    init() {}

    /// Tokens that layers of the last tokens hold: some of them in blocks, and none.
    private static let lastTokens = [70, 33]
    /// Tokens that a layer of listed tokens holds, and how many of them are the cache's first.
    private static let (listedTokens, firstTokens) = (70, 8)

    mutating func make() throws -> KVCache {
        try KVCache(
            layers: [
                layer(kvHeads: 2, keys: 12, values: 12, rows: tokens),
                layer(kvHeads: 1, keys: 8, values: 8, rows: Self.lastTokens[0], held: .last),
                layer(kvHeads: 2, keys: 4, values: 6, rows: Self.listedTokens, held: .listed(lists(heads: 2))),
                KVCacheLayer(elementType: elementType, state: [newState("conv", 77), newState("ssm", 130)]),
                layer(kvHeads: 1, keys: 10, values: 0, rows: tokens),
                layer(kvHeads: 1, keys: 20, values: 5, rows: tokens, state: [newState("empty", 0)]),
                layer(kvHeads: 1, keys: 8, values: 8, rows: Self.lastTokens[1], held: .last),
            ],
            tokenCount: tokens,
            tokens: (0..<Int32(tokens)).map { $0 * 7 % 1000 },
            positions: (0..<Int32(tokens)).map { $0 + 17 },
            metadata: ["model.id": "mixed", "rope.theta": "10000.0"]
        )
    }

    /// New tokens of a cache's layers, with their new state.
    mutating func more(of cache: KVCache, count: Int) -> [KVCacheLayer] {
        zip(cache.layers, cache.geometry.layers).map { old, geometry in
            let state = old.state.map { newState($0.name, $0.bytes.count + 1) }
            guard !geometry.isEmpty else { return KVCacheLayer(elementType: elementType, state: state) }
            return KVCacheLayer(
                keys: tensor(geometry.kvHeads, count, geometry.keyDimension),
                values: tensor(geometry.kvHeads, count, geometry.valueDimension),
                state: state
            )
        }
    }

    private mutating func layer(
        kvHeads: Int,
        keys: Int,
        values: Int,
        rows: Int,
        held: HeldTokens = .all,
        state: [LayerState] = []
    ) -> KVCacheLayer {
        KVCacheLayer(
            keys: tensor(kvHeads, rows, keys),
            values: tensor(kvHeads, rows, values),
            held: held,
            queries: window > 0 ? tensor(2 * kvHeads, window, keys) : nil,
            state: state
        )
    }

    private mutating func tensor(_ heads: Int, _ rows: Int, _ dimension: Int) -> KVTensor {
        .random(elementType: elementType, heads: heads, tokens: rows, headDimension: dimension, using: &generator)
    }

    private mutating func newState(_ name: String, _ count: Int) -> LayerState {
        let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
        return LayerState(name: name, bytes: SharedBytes(bytes))
    }

    /// Tokens that differ from head to head after the first ones.
    private mutating func lists(heads: Int) -> [[UInt32]] {
        let first = UInt32(Self.firstTokens)
        return (0..<heads).map { _ in
            let others = (first..<UInt32(tokens)).shuffled(using: &generator).prefix(Self.listedTokens - Int(first))
            return Array(0..<first) + others.sorted()
        }
    }
}
