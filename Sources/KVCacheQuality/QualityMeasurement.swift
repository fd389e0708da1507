public import CachePacking
internal import ComputeRuntime
public import KVCacheModel

/// Measures layer by layer what compression cost, so that no more than one layer need be in full precision.
public struct QualityMeasurement: Sendable {
    /// The most queries of a head that are compared, the last ones: a cache may have one for every token.
    public static let maximumQueries = 256

    private var layers: [ErrorSums] = []

    public init() {}

    /// Compares the next layer on all processors. Scores and attention need the original's queries. While it runs,
    /// OpenBLAS works on one thread per caller.
    ///
    /// - Parameter slidingWindow: how many tokens a query of the layer sees, its own included; nil for all.
    /// - Throws: `CodecError` if the layers hold different tokens, `CancellationError` if the task is cancelled,
    ///   `MemoryError` if there is no memory for it.
    public mutating func add(
        _ original: KVCacheLayer,
        compressed: CompressedLayer,
        slidingWindow: Int? = nil
    ) async throws {
        guard original.keys.tokens == compressed.rowCount else {
            throw CodecError(
                .shapeMismatch,
                layer: compressed.index,
                "the original has \(original.keys.tokens) tokens in this layer, and the compressed one "
                    + "\(compressed.rowCount)"
            )
        }
        guard original.held == compressed.held else {
            throw CodecError(
                .shapeMismatch,
                layer: compressed.index,
                "the original and the compressed layer hold different tokens"
            )
        }
        let products = SingleThreadedProducts()
        try SingleThreadedProducts.reserve(callers: min(original.keys.heads, SystemThread.processorCount))
        defer { extendLifetime(products) }
        let comparison = LayerComparison(
            original: original,
            compressed: compressed,
            slidingWindow: slidingWindow ?? .max
        )
        let slots = Slots<ErrorSums>(count: original.keys.heads)
        try await forEachConcurrently(count: original.keys.heads) { head in
            slots[head] = try comparison.measure(head: head)
        }
        var sums = ErrorSums()
        for head in slots.values { sums.add(head) }
        layers.append(sums)
    }

    /// Errors of the layers so far.
    public var quality: CompressionQuality {
        var total = ErrorSums()
        for layer in layers { total.add(layer) }
        return CompressionQuality(layers: layers.map(\.errors), total: total.errors)
    }
}
