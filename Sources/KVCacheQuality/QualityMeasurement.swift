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
    /// A compressed layer may list some of the original's tokens: then keys, values and scores are compared for these,
    /// and its attention with that over all that the original holds.
    ///
    /// - Parameter slidingWindow: how many tokens a query of the layer sees, its own included; nil for all.
    /// - Throws: `CodecError` if the compressed layer holds other tokens than the original, or there are more queries than
    ///   tokens; `CancellationError` if the
    ///   task is cancelled, `MemoryError` if there is no memory for it.
    public mutating func add(
        _ original: KVCacheLayer,
        compressed: CompressedLayer,
        slidingWindow: Int? = nil
    ) async throws {
        let queryCount = original.queries?.tokens ?? 0
        guard queryCount <= compressed.tokenCount else {
            throw CodecError(
                .shapeMismatch,
                layer: compressed.index,
                "\(queryCount) queries for \(compressed.tokenCount) tokens, their own included"
            )
        }
        let kept = try keptRows(of: original, compressed: compressed)
        let products = SingleThreadedProducts()
        try SingleThreadedProducts.reserve(callers: min(original.keys.heads, SystemThread.processorCount))
        defer { extendLifetime(products) }
        let comparison = LayerComparison(
            original: kept ?? original,
            compressed: compressed,
            whole: kept == nil ? nil : original,
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

    /// The original's rows of the tokens that the compressed layer lists; nil if it has all of them.
    private func keptRows(of original: KVCacheLayer, compressed: CompressedLayer) throws -> KVCacheLayer? {
        if original.keys.tokens == compressed.rowCount, original.held == compressed.held { return nil }
        let index = compressed.index
        guard case .listed(let lists) = compressed.held, original.keys.tokens > compressed.rowCount else {
            throw CodecError(
                .shapeMismatch,
                layer: index,
                original.keys.tokens == compressed.rowCount
                    ? "the original and the compressed layer hold different tokens"
                    : "the original has \(original.keys.tokens) tokens in this layer, and the compressed one "
                        + "\(compressed.rowCount)"
            )
        }
        let first = compressed.tokenCount - original.keys.tokens
        var rows: [[Int]] = []
        for (head, list) in lists.enumerated() {
            rows.append([])
            for token in list.lazy.map(Int.init) {
                let row = original.row(ofTokensFrom: token, head: head, tokenCount: compressed.tokenCount)
                guard row < original.keys.tokens,
                    original.held.token(ofRow: row, head: head, firstToken: first) == token
                else {
                    throw CodecError(
                        .shapeMismatch,
                        layer: index,
                        head: head,
                        token: token,
                        "the compressed layer holds a token that the original lacks"
                    )
                }
                rows[head].append(row)
            }
        }
        return try original.keeping(rows, tokenCount: compressed.tokenCount)
    }

    /// Errors of the layers so far.
    public var quality: CompressionQuality {
        var total = ErrorSums()
        for layer in layers { total.add(layer) }
        return CompressionQuality(layers: layers.map(\.errors), total: total.errors)
    }
}

extension KVCacheLayer {
    /// The row of a head's first token from one on, of a cache of so many tokens.
    func row(ofTokensFrom token: Int, head: Int, tokenCount: Int) -> Int {
        if case .listed = held { return held.place(ofTokensFrom: token, head: head) }
        return max(token - (tokenCount - keys.tokens), 0)
    }
}
