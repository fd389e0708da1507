import ThinkCompress

extension Attention {
    /// Attends into an array.
    func attend(
        _ queries: KVTensor,
        over layer: CompressedLayer,
        using workers: WorkerThreads,
        into output: inout [Float]
    ) throws {
        var span = output.mutableSpan
        try attend(queries, over: layer, using: workers, into: &span)
    }
}
