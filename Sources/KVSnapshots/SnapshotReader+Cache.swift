internal import ByteStorage
public import CachePacking
public import ComputeRuntime
internal import KVCacheCodecs
internal import KVCacheModel

extension SnapshotReader {
    /// The cache, whose raw pages and window lie in the mapped file, or in memory where the file is read.
    ///
    /// - Parameter verifyingPages: whether the checksums of raw pages in a mapped file are checked now. Without, opening
    ///   touches no page, and damage that `verify` would find goes unnoticed. Pages that must be decoded, and those that
    ///   are read, are checked in any case.
    /// - Throws: `SnapshotError` if something is wrong; `FileError` if the file can't be read; `CancellationError` if the
    ///   task is cancelled.
    public func cache(verifyingPages: Bool = true, progress: ProgressHandler? = nil) async throws -> CompressedCache {
        let list = try slabList()
        let bytes = Slots<SharedBytes>(count: list.count)
        try await forEachConcurrently(count: list.count, progress: progress) { index in
            bytes[index] = try self.bytes(of: list[index], verifying: verifyingPages)
        }
        let slabs = bytes.values
        let layerCount = header.geometry.layers
        let windows = try windows()
        let layers = (0..<layerCount).map { layer in
            CompressedLayer(
                shape: header.shape,
                index: layer,
                plans: plans[layer],
                blockCount: header.blockCount,
                slabs: stride(from: layer, to: slabs.count, by: layerCount).map { slabs[$0] },
                window: windows?[layer]
            )
        }
        return CompressedCache(
            geometry: header.geometry,
            recipe: recipe.record,
            layers: layers,
            tokens: try self.tokens(),
            positions: try self.positions(),
            metadata: metadata,
            profile: try profile()
        )
    }

    func windows() throws -> [KVCacheLayer]? {
        guard let bytes = try source.content(.window) else { return nil }
        let shape = header.shape
        let partBytes = shape.kvHeads * header.windowTokenCount * shape.rowBytes
        func tensor(_ part: Int) -> KVTensor {
            KVTensor(
                bytes: bytes[part * partBytes..<(part + 1) * partBytes],
                elementType: shape.elementType,
                heads: shape.kvHeads,
                tokens: header.windowTokenCount,
                headDimension: shape.headDimension
            )
        }
        return (0..<header.geometry.layers).map { KVCacheLayer(keys: tensor(2 * $0), values: tensor(2 * $0 + 1)) }
    }

    /// The query profile of each layer, `kvHeads * headDimension` numbers, if the snapshot has one.
    public func profile() throws -> [[Float]]? {
        guard var reader = try source.reader(.profile, code: .invalidProfile) else { return nil }
        var layers: [[Float]] = []
        for _ in 0..<header.geometry.layers {
            var layer: [Float] = []
            for _ in 0..<header.geometry.kvHeads * header.geometry.headDimension {
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
