public import CachePacking
public import ComputeRuntime
public import KVCacheModel

extension CompressedCache {
    /// Compresses a whole cache at once, on all processors.
    ///
    /// First every head's plan is decided, then its blocks are packed in one pass; the bytes don't depend on the
    /// number of processors.
    ///
    /// - Throws: `CodecError` if the recipe can't compress this cache (its type, its numbers, missing queries);
    ///   `CancellationError` if the task is cancelled.
    public init(
        compressing cache: KVCache,
        recipe: Recipe,
        progress: ProgressHandler? = nil
    ) async throws {
        var compressor = CacheCompressor(
            geometry: cache.geometry,
            tokenCount: cache.tokenCount,
            elementType: cache.elementType,
            recipe: recipe
        )
        try await compressor.add(checked: cache.layers, progress: progress)
        self = compressor.finish(tokens: cache.tokens, positions: cache.positions, metadata: cache.metadata)
    }
}
