internal import LlamaDecoder
internal import ThinkCompress

/// An archive that a command restores, and the model's profile that it was made by.
struct ArchiveInput {
    /// What is wrong with a profile for a snapshot that is used as it is.
    static let noArchive = "is no archive, and --profile is that of an archive; leave it out"

    let archive: CacheArchive
    /// The profile of every layer; nil where the archive was made without.
    let profile: [LayerProfile]?

    /// - Parameters:
    ///   - reader: of an archive.
    ///   - profile: the profile that was given, if one was.
    ///   - input: the archive's file, for errors.
    /// - Throws: `InputError` if the file is damaged, or the profile another one or missing.
    init(_ reader: SnapshotReader, profile: ProfileInput?, of input: InputFile) async throws {
        archive = try await about(input) { try await reader.archive() }
        let layers = try await profile?.layers(metadata: reader.metadata, geometry: reader.geometry)
        self.profile = layers
        let archive = archive
        try await about(input) {
            guard archive.plan.basisDigest == nil || layers != nil else {
                throw ContentError(
                    "is an archive that was made by a model's profile; pass that with --profile to restore it"
                )
            }
            _ = try ArchiveRestoration(archive, bases: layers.flatMap { ArchiveBases($0) })
        }
    }

    /// Hands out the layers in full precision, one after another.
    func forEachLayer(
        tokens: Int,
        as elementType: ElementType,
        take: (_ index: Int, _ layer: KVCacheLayer) throws -> Void
    ) async throws {
        let restoration = try ArchiveRestoration(archive, bases: profile.flatMap { ArchiveBases($0) })
        let progress = Console.progress("restoring")
        for group in restoration.layerGroups {
            let layers = try await restoration.layers(group, tokens: tokens, as: elementType)
            for (index, layer) in zip(group, layers) { try take(index, layer) }
            progress?(Double(group.upperBound) / Double(archive.layers.count))
        }
    }

    /// The cache for use in place.
    func cache(packedBy recipe: Recipe, progress: ProgressHandler? = nil) async throws -> CompressedCache {
        try await CompressedCache(restoring: archive, profile: profile, recipe: recipe, progress: progress)
    }
}
