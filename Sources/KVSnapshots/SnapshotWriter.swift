public import ByteStorage
public import CachePacking
public import ComputeRuntime
internal import KVCacheModel

/// Writes a compressed cache as a file: Formats/snapshot.md.
public struct SnapshotWriter: Sendable {
    /// The zstd level for archives, 1...19, or nil to store sections raw, to be used in place.
    public let compressionLevel: Int?
    /// Whether a file of the same name may be replaced.
    public let replacesExisting: Bool
    /// Who may use the file: a cache can be read back, at least in part, as the prompt that it was computed from.
    public let access: FileAccess

    /// The zstd levels that a writer takes.
    public static let compressionLevels = Zstandard.levels

    /// A writer; a level outside of `compressionLevels` is a programming error.
    public init(compressionLevel: Int? = nil, replacesExisting: Bool = false, access: FileAccess = .ownerOnly) {
        precondition(
            compressionLevel.map(Self.compressionLevels.contains) ?? true,
            "zstd levels are \(Self.compressionLevels)"
        )
        self.compressionLevel = compressionLevel
        self.replacesExisting = replacesExisting
        self.access = access
    }

    /// Writes the cache to `path`, whole or not at all.
    ///
    /// - Parameter quality: what compression cost, if it was measured.
    /// - Returns: how large the file is.
    /// - Throws: `FileError` if the file can't be written, `SnapshotWritingError` if the format can't say the cache,
    ///   `CancellationError` if the task is cancelled.
    @discardableResult
    public func write(
        _ cache: CompressedCache,
        quality: CompressionQuality? = nil,
        to path: String,
        progress: ProgressHandler? = nil
    ) async throws -> SnapshotSize {
        try await write(cache, quality: quality, progress: progress) {
            try AtomicFileWriter(path: path, replacingExisting: replacesExisting, access: access)
        }
    }

    /// How large the file of a cache would be; none is written.
    ///
    /// - Throws: as `write`.
    public func size(of cache: CompressedCache, quality: CompressionQuality? = nil) async throws -> SnapshotSize {
        try await write(cache, quality: quality, progress: nil) { nil }
    }

    private func write(
        _ cache: CompressedCache,
        quality: CompressionQuality?,
        progress: ProgressHandler?,
        into file: () throws -> AtomicFileWriter?
    ) async throws -> SnapshotSize {
        if let problem = MetadataSection.problem(with: cache.metadata) { throw SnapshotWritingError(message: problem) }
        guard cache.tokenCount > 0 else { throw SnapshotWritingError(message: "the cache has no tokens") }
        precondition(quality.map { $0.layers.count == cache.layers.count } ?? true, "quality is of every layer")
        let header = SnapshotHeader(cache)
        let (front, back) = sections(of: cache, quality: quality)
        let hasBlocks = header.blockTokenCount > 0
        var sink = SectionSink(
            file: try file(),
            sectionCount: front.count + back.count + (hasBlocks ? 2 : 0),
            compressionLevel: compressionLevel
        )
        for section in front { try sink.append(section) }
        if hasBlocks { try await sink.appendPages(of: cache, progress: progress) }
        for section in back { try sink.append(section) }
        try Task.checkCancellation()
        return try sink.finish(header)
    }

    // MARK: -

    /// The sections before and after the pages.
    private func sections(
        of cache: CompressedCache,
        quality: CompressionQuality?
    ) -> (front: [SnapshotSection], back: [SnapshotSection]) {
        var front: [SnapshotSection] = []
        if !cache.metadata.isEmpty {
            front.append(SnapshotSection(kind: .metadata, bytes: MetadataSection.encode(cache.metadata)))
        }
        front.append(SnapshotSection(kind: .recipe, bytes: RecipeSection.encode(cache.recipe)))
        front.append(SnapshotSection(kind: .plan, bytes: PlanSection.encode(cache.layers.map(\.plans))))
        if let profile = cache.profile {
            var writer = ByteWriter()
            for number in profile.joined() { writer.append(number) }
            front.append(SnapshotSection(kind: .profile, bytes: writer.bytes))
        }
        if let quality, quality.isFinite {
            front.append(SnapshotSection(kind: .quality, bytes: QualitySection.encode(quality)))
        }

        var back: [SnapshotSection] = []
        if cache.tokenCount > cache.blockTokenCount {
            let pieces = cache.layers.compactMap(\.residualWindow).flatMap { [$0.keys, $0.values] }
                .flatMap { $0.contiguousPieces }
            back.append(SnapshotSection(kind: .window, pieces: pieces))
        }
        for (kind, numbers) in [(SectionKind.tokens, cache.tokens), (.positions, cache.positions)] {
            guard let numbers else { continue }
            var writer = ByteWriter()
            for number in numbers { writer.append(number) }
            back.append(SnapshotSection(kind: kind, bytes: writer.bytes))
        }
        if let tokens = cache.tokens {
            let digests = PrefixChain.digests(
                tokens: tokens,
                geometry: cache.geometry,
                elementType: cache.shape.elementType,
                metadata: cache.metadata
            )
            if !digests.isEmpty { back.append(SnapshotSection(kind: .chain, bytes: Array(digests.joined()))) }
        }
        return (front, back)
    }
}

/// A cache that the format can't say.
public struct SnapshotWritingError: Error, Sendable, Equatable, CustomStringConvertible {
    public let message: String

    public var description: String { message }
}
