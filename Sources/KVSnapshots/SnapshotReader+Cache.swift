internal import ByteStorage
public import CachePacking
public import ComputeRuntime
internal import KVCacheModel

extension SnapshotReader {
    /// The cache, whose raw pages and rows lie in the mapped file, or in memory where the file is read.
    ///
    /// - Parameter verifyingPages: whether the checksums of raw pages in a mapped file are checked now. Without, opening
    ///   touches no page, and damage that `verify` would find goes unnoticed. Pages that must be decoded, and those that
    ///   are read, are checked in any case.
    /// - Throws: `SnapshotError` if something is wrong; `FileError` if the file can't be read; `CancellationError` if the
    ///   task is cancelled.
    public func cache(verifyingPages: Bool = true, progress: ProgressHandler? = nil) async throws -> CompressedCache {
        try checkIsNoArchive()
        let list = try slabList()
        let bytes = Slots<SharedBytes>(count: list.count)
        try await forEachConcurrently(count: list.count, progress: progress) { index in
            bytes[index] = try self.bytes(of: list[index], verifying: verifyingPages)
        }
        var contents = try layerContents()
        for (slab, bytes) in zip(list, bytes.values) { contents[slab.layer].slabs.append(bytes) }
        return CompressedCache(
            geometry: geometry,
            recipe: recipe,
            layers: zip(emptyLayers(), contents).map { $0.holding($1) },
            tokenCount: header.tokenCount,
            tokens: try self.tokens(),
            positions: try self.positions(),
            metadata: metadata,
            profile: try profile()
        )
    }

    /// - Throws: `SnapshotError` if the snapshot is an archive, which has no cache that is used in place.
    func checkIsNoArchive() throws(SnapshotError) {
        guard archivePlan != nil, let entry = table[.archivePlan] else { return }
        throw SnapshotError(
            .isArchive,
            at: entry.offset,
            "the snapshot is an archive, which is restored before it is used",
            remedy: "restore it with think-compress restore, or let generate --snapshot do so"
        )
    }

    /// Each layer's plan without rows.
    func emptyLayers() -> [CompressedLayer] {
        plans.enumerated().map { CompressedLayer(shape: header.shape, index: $0, plan: $1) }
    }

    /// What each layer holds, without its slabs.
    func layerContents() throws -> [CompressedLayer.Content] {
        let windows = try rows(.window) { $0.extent.windowRowCount }
        let sinks = try rows(.sinks) { $0.sinkRowCount }
        let held = try heldTokens()
        let state = try state()
        return layerOutlines.enumerated().map { index, layer in
            CompressedLayer.Content(
                extent: layer.extent,
                tokenCount: header.tokenCount,
                held: held[index],
                sinks: sinks[index],
                window: windows[index],
                state: state?[index] ?? []
            )
        }
    }

    /// Which tokens each layer holds.
    func heldTokens() throws -> [HeldTokens] {
        let lists: [Int: HeldTokens] =
            if var reader = try source.reader(.heldTokens, code: .invalidHeldTokens) {
                try HeldTokensSection.decode(&reader, layers: layerOutlines, tokenCount: header.tokenCount)
            } else {
                [:]
            }
        return layerOutlines.enumerated().map { lists[$0] ?? ($1.held == .last ? .last : .all) }
    }

    /// What each layer keeps beside keys and values, if any does.
    func state() throws -> [[LayerState]]? {
        guard var reader = try source.reader(.state, code: .invalidState) else { return nil }
        return try StateSection.decode(&reader, layerCount: header.layerCount)
    }

    /// The rows of WINDOW or SINKS, layer by layer; nil for layers that have none.
    func rows(_ kind: SectionKind, count: (LayerOutline) -> Int) throws -> [KVCacheLayer?] {
        let bytes = try source.content(kind)
        var start = 0
        return layerOutlines.map { layer in
            let rows = count(layer)
            guard let bytes, rows > 0 else { return nil }
            func tensor(_ part: CachePart) -> KVTensor {
                let dimension = layer.geometry.dimension(part)
                let byteCount = layer.geometry.kvHeads * rows * dimension * header.shape.elementType.byteCount
                defer { start += byteCount }
                return KVTensor(
                    bytes: bytes[start..<start + byteCount],
                    elementType: header.shape.elementType,
                    heads: layer.geometry.kvHeads,
                    tokens: rows,
                    headDimension: dimension
                )
            }
            let keys = tensor(.keys)
            return KVCacheLayer(keys: keys, values: tensor(.values))
        }
    }

    /// The query profile of each layer, `kvHeads * keyDimension` numbers, if the snapshot has one.
    public func profile() throws -> [[Float]]? {
        guard var reader = try source.reader(.profile, code: .invalidProfile) else { return nil }
        var layers: [[Float]] = []
        for geometry in geometry.layers {
            var layer: [Float] = []
            for _ in 0..<geometry.kvHeads * geometry.keyDimension {
                let start = reader.position
                let number = try reader.float("a mean squared query")
                guard number >= 0, number.isFinite else {
                    throw reader.error(at: start, "a mean squared query is \(number), must be finite and not negative")
                }
                layer.append(number)
            }
            layers.append(layer)
        }
        return layers
    }
}
