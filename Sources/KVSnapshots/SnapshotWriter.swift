public import ByteStorage
public import CachePacking
public import ComputeRuntime
internal import KVCacheModel

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
        let header = SnapshotHeader(cache)
        let (front, back) = sections(of: cache, quality: quality)
        let hasBlocks = cache.blockByteCount > 0
        var layout = SectionLayout(
            sectionCount: front.count + back.count + (hasBlocks ? 2 : 0),
            encoder: compressionLevel.map { .zstd(level: $0) } ?? .raw
        )
        for section in front { try layout.append(section, to: &sink) }
        if hasBlocks { try await layout.appendPages(of: cache.layers, to: &sink, progress: progress) }
        for section in back { try layout.append(section, to: &sink) }
        try Task.checkCancellation()
        return try layout.finish(header, to: &sink)
    }

    /// How large the snapshot of a cache would be; none is written.
    ///
    /// - Throws: as `write`.
    public func size(of cache: CompressedCache, quality: CompressionQuality? = nil) async throws -> SnapshotSize {
        var sink = NoSink()
        return try await write(cache, quality: quality, into: &sink)
    }

    // MARK: -

    private static func check(_ cache: CompressedCache) throws(SnapshotWritingError) {
        let problem =
            MetadataSection.problem(with: cache.metadata) ?? cache.recipe.flatMap(RecipeSection.problem)
            ?? StateSection.problem(with: cache.layers.map(\.state))
        if let problem { throw SnapshotWritingError(message: problem) }
        guard cache.tokenCount > 0 else { throw SnapshotWritingError(message: "the cache has no tokens") }
    }

    /// The sections before and after the pages.
    private func sections(
        of cache: CompressedCache,
        quality: CompressionQuality?
    ) -> (front: [SnapshotSection], back: [SnapshotSection]) {
        var front: [SnapshotSection] = []
        var back: [SnapshotSection] = []
        func words(_ kind: SectionKind, _ numbers: some Sequence<UInt32>) -> SnapshotSection {
            var writer = ByteWriter()
            for number in numbers { writer.append(number) }
            return SnapshotSection(kind: kind, bytes: writer.bytes)
        }
        func rows(_ kind: SectionKind, _ layers: [KVCacheLayer]) {
            let pieces = layers.flatMap { [$0.keys, $0.values] }.flatMap(\.contiguousPieces).filter { $0.count > 0 }
            if !pieces.isEmpty { back.append(SnapshotSection(kind: kind, pieces: pieces)) }
        }
        if !cache.metadata.isEmpty {
            front.append(SnapshotSection(kind: .metadata, bytes: MetadataSection.encode(cache.metadata)))
        }
        if let recipe = cache.recipe {
            front.append(SnapshotSection(kind: .recipe, bytes: RecipeSection.encode(recipe)))
        }
        front.append(
            SnapshotSection(kind: .geometry, bytes: GeometrySection.encode(cache.layers.map(LayerOutline.init)))
        )
        let plans = PlanSection.encode(cache.layers.map(\.plan))
        if !plans.isEmpty { front.append(SnapshotSection(kind: .plan, bytes: plans)) }
        if let profile = cache.profile { front.append(words(.profile, profile.joined().map(\.bitPattern))) }
        if let quality, quality.isFinite {
            front.append(SnapshotSection(kind: .quality, bytes: QualitySection.encode(quality)))
        }

        rows(.sinks, cache.layers.compactMap(\.sinkRows))
        rows(.window, cache.layers.compactMap(\.residualWindow))
        let held = HeldTokensSection.encode(cache.layers.map(\.held))
        if !held.isEmpty { back.append(SnapshotSection(kind: .heldTokens, bytes: held)) }
        let state = StateSection.encode(cache.layers.map(\.state))
        if !state.isEmpty { back.append(SnapshotSection(kind: .state, pieces: state)) }
        for (kind, numbers) in [(SectionKind.tokens, cache.tokens), (.positions, cache.positions)] {
            if let numbers { back.append(words(kind, numbers.map(UInt32.init(bitPattern:)))) }
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
        let bases = BasesSection.encode(cache.layers.map(\.plan))
        if !bases.isEmpty { back.append(SnapshotSection(kind: .bases, bytes: bases)) }
        return (front, back)
    }
}

/// A cache that the format can't say.
public struct SnapshotWritingError: Error, Sendable, Equatable, CustomStringConvertible {
    public let message: String

    public var description: String { message }
}
