import CThinkCompress
import ThinkCompress
import ThinkCompressABI

/// A snapshot's cache as callers in C have it, and what they pass to attend to it.
final class LibraryCache {
    private let queries: TensorMemory
    private let newer: [TensorMemory]
    private var newerLayer = tc_layer()
    private var cache: OpaquePointer?
    private var workers: OpaquePointer?

    /// - Parameters:
    ///   - newer: tokens after the cache's; nil for none.
    ///   - threads: of the library's workers; nil for calls without.
    init(snapshot path: String, queries: KVTensor, newer: KVCacheLayer?, threads: Int?) throws {
        self.queries = TensorMemory(queries)
        self.newer = newer.map { [TensorMemory($0.keys), TensorMemory($0.values)] } ?? []
        newerLayer.size = MemoryLayout<tc_layer>.size
        if let newer {
            newerLayer.tokens = newer.keys.tokens
            newerLayer.keys = self.newer[0].tensor
            newerLayer.values = self.newer[1].tensor
        }
        var snapshot: OpaquePointer?
        defer { tc_snapshot_free(snapshot) }
        try check(tc_snapshot_open(path, &snapshot))
        try check(tc_snapshot_load(snapshot, Int(bitPattern: .max), nil, &cache))
        if let threads { try check(tc_workers_create(threads, &workers)) }
    }

    deinit {
        tc_workers_free(workers)
        tc_cache_free(cache)
    }

    func attend(layer: Int, into output: inout [Float]) throws {
        var options = tc_attention_options()
        options.size = MemoryLayout<tc_attention_options>.size
        var tensor = queries.tensor
        let status = withUnsafePointer(to: &newerLayer) { newerLayer in
            if !newer.isEmpty { options.newer = newerLayer }
            return tc_cache_attend(
                cache,
                layer,
                &tensor,
                queries.heads,
                queries.tokens,
                &options,
                workers,
                &output,
                output.count
            )
        }
        try check(status)
    }
}

private func check(_ status: tc_status) throws {
    guard status != TC_OK else { return }
    throw ServingError("the C library says: " + (tc_last_error().map { String(cString: $0) } ?? "\(status)"))
}

/// A copy of a tensor of float16, without gaps, where C can read it.
private final class TensorMemory {
    let heads: Int
    let tokens: Int
    private let bytes: UnsafeMutableRawBufferPointer

    init(_ tensor: KVTensor) {
        heads = tensor.heads
        tokens = tensor.tokens
        bytes = .allocate(byteCount: tensor.bytes.count, alignment: 64)
        tensor.bytes.span.withUnsafeBytes { bytes.copyMemory(from: $0) }
    }

    deinit { bytes.deallocate() }

    /// Valid as long as this object lives.
    var tensor: tc_tensor {
        tc_tensor(data: bytes.baseAddress, type: TC_FLOAT16, head_stride: 0, token_stride: 0, channel_stride: 0)
    }
}
