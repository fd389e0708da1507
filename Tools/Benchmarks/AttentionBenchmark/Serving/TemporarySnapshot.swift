import BenchmarkSupport
import Foundation
import ThinkCompress

/// A snapshot of 32 layers in a file of its own, in the page cache, that is removed with the object.
final class TemporarySnapshot {
    static let layers = 32

    let path: String
    private let folder: URL

    /// - Returns: the file, and the cache in memory that it was written from.
    static func write(recipe: Recipe, tokens: Int) async throws -> (file: TemporarySnapshot, cache: CompressedCache) {
        let file = try TemporarySnapshot()
        let layer = SyntheticLayer(tokens: tokens).cacheLayer
        let cache = try KVCache(
            layers: [KVCacheLayer](repeating: layer, count: layers),
            tokens: (0..<Int32(tokens)).map { $0 }
        )
        let compressed = try await CompressedCache(compressing: cache, recipe: recipe)
        try await SnapshotWriter().write(compressed, to: file.path)
        return (file, compressed)
    }

    private init() throws {
        folder = FileManager.default.temporaryDirectory.appending(path: "attention-benchmark-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        path = folder.appending(path: "cache.tkv").path
    }

    deinit { try? FileManager.default.removeItem(at: folder) }
}
