public import ByteStorage
public import CacheArchives
public import CachePacking
public import ComputeRuntime

/// Writes a compressed cache as a snapshot: Formats/snapshot.md.
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
        try Self.check(cache)
        var file = try AtomicFileWriter(path: path, replacingExisting: replacesExisting, access: access)
        let size = try await write(cache, quality: quality, into: &file, progress: progress)
        try Task.checkCancellation()
        try file.commit()
        return size
    }

    /// Writes the cache to a sink.
    ///
    /// - Parameter quality: what compression cost, if it was measured.
    /// - Returns: how large the snapshot is.
    /// - Throws: what the sink throws, `SnapshotWritingError` if the format can't say the cache, `CancellationError` if
    ///   the task is cancelled.
    @discardableResult
    public func write(
        _ cache: CompressedCache,
        quality: CompressionQuality? = nil,
        into sink: inout some SnapshotSink & ~Copyable,
        progress: ProgressHandler? = nil
    ) async throws -> SnapshotSize {
        try Self.check(cache)
        precondition(quality.map { $0.layers.count == cache.layers.count } ?? true, "quality is of every layer")
        let contents = SnapshotContents(cache, quality: quality)
        let hasBlocks = cache.blockByteCount > 0
        var layout = SectionLayout(
            sectionCount: contents.front.count + contents.back.count + (hasBlocks ? 2 : 0),
            encoder: encoder
        )
        for section in contents.front { try layout.append(section, to: &sink) }
        if hasBlocks { try await layout.appendPages(of: cache.layers, to: &sink, progress: progress) }
        for section in contents.back { try layout.append(section, to: &sink) }
        try Task.checkCancellation()
        return try layout.finish(contents.header, to: &sink)
    }

    /// How large the snapshot of a cache would be; none is written.
    ///
    /// - Throws: as `write`.
    public func size(of cache: CompressedCache, quality: CompressionQuality? = nil) async throws -> SnapshotSize {
        var sink = NoSink()
        return try await write(cache, quality: quality, into: &sink)
    }

    /// Writes an archive to `path`, whole or not at all.
    ///
    /// - Parameter quality: what archiving cost, if it was measured.
    /// - Returns: how large the file is.
    /// - Throws: as for a cache.
    @discardableResult
    public func write(
        _ archive: CacheArchive,
        quality: CompressionQuality? = nil,
        to path: String
    ) throws -> SnapshotSize {
        var file = try AtomicFileWriter(path: path, replacingExisting: replacesExisting, access: access)
        let size = try write(archive, quality: quality, into: &file)
        try Task.checkCancellation()
        try file.commit()
        return size
    }

    /// Writes an archive to a sink.
    ///
    /// - Throws: as for a cache.
    @discardableResult
    public func write(
        _ archive: CacheArchive,
        quality: CompressionQuality? = nil,
        into sink: inout some SnapshotSink & ~Copyable
    ) throws -> SnapshotSize {
        try SnapshotContents.check(
            metadata: archive.metadata,
            recipe: archive.recipe,
            state: archive.layers.map(\.state),
            tokenCount: archive.tokenCount
        )
        let contents = SnapshotContents(archive, quality: quality)
        let sections = contents.front + contents.back
        let hasChunks = !archive.chunks.isEmpty
        let windows = archive.layers.map(\.window).filter { $0.count > 0 }
        var layout = SectionLayout(
            sectionCount: sections.count + 1 + (hasChunks ? 2 : 0) + (windows.isEmpty ? 0 : 1),
            encoder: encoder
        )
        for section in sections { try layout.append(section, to: &sink) }
        try layout.append(
            SnapshotSection(kind: .archivePlan, bytes: ArchivePlanSection.encode(archive.plan)),
            to: &sink
        )
        if hasChunks { try layout.appendChunks(archive.chunks, to: &sink) }
        if !windows.isEmpty { try layout.append(SnapshotSection(kind: .archiveWindow, pieces: windows), to: &sink) }
        return try layout.finish(contents.header, to: &sink)
    }

    /// How large the snapshot of an archive would be; none is written.
    ///
    /// - Throws: as `write`.
    public func size(of archive: CacheArchive, quality: CompressionQuality? = nil) throws -> SnapshotSize {
        var sink = NoSink()
        return try write(archive, quality: quality, into: &sink)
    }

    // MARK: -

    private var encoder: SectionEncoder { compressionLevel.map { .zstd(level: $0) } ?? .raw }

    private static func check(_ cache: CompressedCache) throws(SnapshotWritingError) {
        try SnapshotContents.check(
            metadata: cache.metadata,
            recipe: cache.recipe,
            state: cache.layers.map(\.state),
            tokenCount: cache.tokenCount
        )
    }
}

/// A cache that the format can't say.
public struct SnapshotWritingError: Error, Sendable, Equatable, CustomStringConvertible {
    public let message: String

    public var description: String { message }
}
