import ThinkCompress

/// One layer of Llama-3-8B's shape with seeded numbers: a few key channels of large, steady magnitude.
public struct SyntheticLayer: Sendable {
    public static let kvHeads = 8
    public static let queryHeads = 32
    /// Of keys and of values, unless another is asked for.
    public static let headDimension = 128
    /// The last queries of the prompt, which score key channels.
    public static let observedQueries = 32
    /// Bytes of a token of one KV head in float16, key and value.
    public static let float16TokenBytes = 2 * headDimension * 2

    public let tokens: Int
    public let keys: KVTensor
    public let values: KVTensor
    public let queries: KVTensor

    public init(tokens: Int, headDimension: Int = Self.headDimension) {
        self.tokens = tokens
        var numbers = SyntheticNumbers()
        keys = numbers.tensor(heads: Self.kvHeads, rows: tokens, dimension: headDimension, outliers: true)
        values = numbers.tensor(heads: Self.kvHeads, rows: tokens, dimension: headDimension, outliers: false)
        queries = numbers.tensor(
            heads: Self.queryHeads,
            rows: Self.observedQueries,
            dimension: headDimension,
            outliers: false
        )
    }

    /// Queries of new tokens: `[queryHeads, count, headDimension]`.
    ///
    /// - Parameter isSharp: whether few tokens have nearly all weight, which makes fast mode take the precise path for
    ///   some tiles; otherwise softmax is nearly uniform, where its relative error is largest.
    public static func newQueries(
        count: Int,
        headDimension: Int = Self.headDimension,
        isSharp: Bool = false
    ) -> KVTensor {
        var numbers = SyntheticNumbers(seed: 0xD1B5_4A32_D192_ED03)
        return numbers.tensor(
            heads: queryHeads,
            rows: count,
            dimension: headDimension,
            outliers: false,
            magnitude: isSharp ? 1 : 0.5
        )
    }

    public var cacheLayer: KVCacheLayer { KVCacheLayer(keys: keys, values: values, queries: queries) }

    /// Bytes of keys and values in float16.
    public var byteCount: Int { keys.byteCount + values.byteCount }
}
