internal import ByteStorage
internal import CacheArchives
internal import CachePacking
internal import KVCacheModel

/// The header of a snapshot, and its sections but those whose bytes depend on how keys and values are coded.
struct SnapshotContents {
    let header: SnapshotHeader
    /// Those before the pages of a cache.
    private(set) var front: [SnapshotSection] = []
    /// Those after them.
    private(set) var back: [SnapshotSection] = []

    init(_ cache: CompressedCache, quality: CompressionQuality?) {
        header = SnapshotHeader(
            layerCount: cache.layers.count,
            shape: cache.shape,
            tokenCount: cache.tokenCount,
            version: Self.version(of: cache)
        )
        addFront(cache.metadata, cache.recipe, cache.layers.map(LayerOutline.init))
        let plans = PlanSection.encode(cache.layers.map(\.plan))
        if !plans.isEmpty { front.append(SnapshotSection(kind: .plan, bytes: plans)) }
        addFront(cache.profile, quality)
        addRows(.sinks, cache.layers.compactMap(\.sinkRows))
        addRows(.window, cache.layers.compactMap(\.residualWindow))
        let held = HeldTokensSection.encode(cache.layers.map(\.held))
        if !held.isEmpty { back.append(SnapshotSection(kind: .heldTokens, bytes: held)) }
        addBack(
            state: cache.layers.map(\.state),
            tokens: cache.tokens,
            positions: cache.positions,
            geometry: cache.geometry,
            metadata: cache.metadata
        )
        let bases = BasesSection.encode(cache.layers.map(\.plan))
        if !bases.isEmpty { back.append(SnapshotSection(kind: .bases, bytes: bases)) }
    }

    init(_ archive: CacheArchive, quality: CompressionQuality?) {
        header = SnapshotHeader(
            layerCount: archive.layers.count,
            shape: archive.shape,
            tokenCount: archive.tokenCount,
            version: SnapshotFormat.versions.upperBound
        )
        addFront(archive.metadata, archive.recipe, archive.layers.map(LayerOutline.init))
        addFront(archive.profile, quality)
        addRows(.sinks, archive.layers.compactMap(\.sinks))
        addBack(
            state: archive.layers.map(\.state),
            tokens: archive.tokens,
            positions: archive.positions,
            geometry: archive.geometry,
            metadata: archive.metadata
        )
    }

    /// The version of a cache's file: the first that has all of its sections.
    static func version(of cache: CompressedCache) -> UInt32 {
        cache.layers.contains { $0.plan.heads.contains { $0.components != nil } }
            ? SnapshotFormat.versions.upperBound : SnapshotFormat.versions.lowerBound
    }

    /// - Throws: `SnapshotWritingError` if the format can't say it.
    static func check(
        metadata: [String: String],
        recipe: RecipeRecord?,
        state: [[LayerState]],
        tokenCount: Int
    ) throws(SnapshotWritingError) {
        let problem =
            MetadataSection.problem(with: metadata) ?? recipe.flatMap(RecipeSection.problem)
            ?? StateSection.problem(with: state)
        if let problem { throw SnapshotWritingError(message: problem) }
        guard tokenCount > 0 else { throw SnapshotWritingError(message: "the cache has no tokens") }
    }

    // MARK: -

    private mutating func addFront(_ metadata: [String: String], _ recipe: RecipeRecord?, _ layers: [LayerOutline]) {
        if !metadata.isEmpty { front.append(SnapshotSection(kind: .metadata, bytes: MetadataSection.encode(metadata))) }
        if let recipe { front.append(SnapshotSection(kind: .recipe, bytes: RecipeSection.encode(recipe))) }
        front.append(SnapshotSection(kind: .geometry, bytes: GeometrySection.encode(layers)))
    }

    private mutating func addFront(_ profile: [[Float]]?, _ quality: CompressionQuality?) {
        if let profile { front.append(Self.words(.profile, profile.joined().map(\.bitPattern))) }
        if let quality, quality.isFinite {
            front.append(SnapshotSection(kind: .quality, bytes: QualitySection.encode(quality)))
        }
    }

    private mutating func addRows(_ kind: SectionKind, _ layers: [KVCacheLayer]) {
        let pieces = layers.flatMap { [$0.keys, $0.values] }.flatMap(\.contiguousPieces).filter { $0.count > 0 }
        if !pieces.isEmpty { back.append(SnapshotSection(kind: kind, pieces: pieces)) }
    }

    private mutating func addBack(
        state: [[LayerState]],
        tokens: [Int32]?,
        positions: [Int32]?,
        geometry: CacheGeometry,
        metadata: [String: String]
    ) {
        let state = StateSection.encode(state)
        if !state.isEmpty { back.append(SnapshotSection(kind: .state, pieces: state)) }
        for (kind, numbers) in [(SectionKind.tokens, tokens), (.positions, positions)] {
            if let numbers { back.append(Self.words(kind, numbers.map(UInt32.init(bitPattern:)))) }
        }
        if let tokens {
            let digests = PrefixChain.digests(
                tokens: tokens,
                geometry: geometry,
                elementType: header.shape.elementType,
                metadata: metadata
            )
            if !digests.isEmpty { back.append(SnapshotSection(kind: .chain, bytes: Array(digests.joined()))) }
        }
    }

    private static func words(_ kind: SectionKind, _ numbers: some Sequence<UInt32>) -> SnapshotSection {
        var writer = ByteWriter()
        for number in numbers { writer.append(number) }
        return SnapshotSection(kind: kind, bytes: writer.bytes)
    }
}
