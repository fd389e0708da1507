public import CacheArchives
public import CachePacking
public import ComputeRuntime
public import KVCacheCodecs
public import KVCacheModel

extension CompressedCache {
    /// Restores an archive and packs it for use in place, some layers at a time.
    ///
    /// - Parameters:
    ///   - profile: the model's profile of every layer: its bases restore, and the recipe's stages decide by the rest. Nil
    ///     for an archive that was made without one.
    ///   - recipe: how to pack it.
    /// - Throws: `ArchiveError` if the profile is another than the archive was made by, or a chunk is damaged; `CodecError`
    ///   if the recipe can't pack the cache; `CancellationError`.
    public init(
        restoring archive: CacheArchive,
        profile: [LayerProfile]?,
        recipe: Recipe,
        progress: ProgressHandler? = nil
    ) async throws {
        let restoration = try ArchiveRestoration(archive, bases: profile.flatMap { ArchiveBases($0) })
        let elementType = archive.shape.elementType
        var compressor = CacheCompressor(
            geometry: archive.geometry,
            tokenCount: archive.tokenCount,
            elementType: elementType,
            recipe: recipe,
            profile: profile,
            rowCounts: archive.layers.map(\.extent.rowCount)
        )
        // Stages that look at all layers get them together.
        var whole: [KVCacheLayer] = []
        for group in restoration.layerGroups {
            var layers = try await restoration.layers(group, as: elementType)
            if profile == nil, let queries = archive.profile {
                layers = zip(layers, group).map { layer, index in
                    layer.isEmpty ? layer : layer.withProfile(LayerProfile(meanSquaredQueries: queries[index]))
                }
            }
            if recipe.needsWholeCache { whole += layers } else { try await compressor.add(layers) }
            progress?(Double(group.upperBound) / Double(archive.layers.count))
        }
        if recipe.needsWholeCache { try await compressor.add(whole) }
        self = compressor.finish(
            tokens: archive.tokens,
            positions: archive.positions,
            metadata: archive.metadata
        )
    }
}
