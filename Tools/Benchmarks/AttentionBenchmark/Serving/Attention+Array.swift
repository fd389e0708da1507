import ThinkCompress

extension Attention {
    /// Attends into an array.
    func attend(
        _ queries: KVTensor,
        over layer: CompressedLayer,
        followedBy newer: KVCacheLayer? = nil,
        using workers: WorkerThreads,
        into output: inout [Float]
    ) throws {
        var span = output.mutableSpan
        try attend(queries, over: layer, followedBy: newer, using: workers, into: &span)
    }
}
