internal import ByteStorage
package import CachePacking
package import KVCacheModel

/// Rows of one head in float32, all of them finite: `[count, dimension]`.
package struct FiniteRows: Sendable {
    package let count: Int
    package let dimension: Int
    private let numbers: [Float]

    /// The keys of a KV head.
    ///
    /// - Throws: `CodecError` if one is not finite, or there is no memory.
    package init(_ statistics: LayerStatistics, keysOfHead head: Int) throws(CodecError) {
        try self.init(statistics.source.keys, head: head, layer: statistics.layer)
        guard areFinite else {
            try statistics.checkFinite(remedy: "take streaming, which chooses tokens without looking at keys")
            throw statistics.unsupported(.keys, head: head)
        }
    }

    /// The queries of a query head.
    ///
    /// - Throws: `CodecError` if one is not finite, or there is no memory.
    package init(_ queries: KVTensor, queryHead: Int, layer: Int) throws(CodecError) {
        try self.init(queries, head: queryHead, layer: layer)
        guard areFinite else {
            throw CodecError(
                .unsupportedValue,
                layer: layer,
                "a query of query head \(queryHead) is not finite; export the cache again"
            )
        }
    }

    private init(_ tensor: KVTensor, head: Int, layer: Int) throws(CodecError) {
        let size = tensor.tokens * tensor.headDimension
        do {
            try AlignedBuffer.checkAvailability(byteCount: size * MemoryLayout<Float>.stride)
        } catch {
            throw CodecError(error, layer: layer)
        }
        count = tensor.tokens
        dimension = tensor.headDimension
        numbers = unsafe [Float](unsafeUninitializedCapacity: size) { buffer, filled in
            if let base = buffer.baseAddress {
                unsafe tensor.widenRows(head: head, from: 0, count: tensor.tokens, into: base)
            }
            filled = size
        }
    }

    private var areFinite: Bool { numbers.allSatisfy(\.isFinite) }

    package subscript(row: Int, channel: Int) -> Float { numbers[row * dimension + channel] }

    /// Lends the numbers, row by row.
    package func withNumbers(_ body: (UnsafeBufferPointer<Float>) -> Void) {
        unsafe numbers.withUnsafeBufferPointer(body)
    }
}
