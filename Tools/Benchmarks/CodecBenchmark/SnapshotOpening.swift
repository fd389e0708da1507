import Foundation
import ThinkCompress

/// Opens a large snapshot: a mapping and a checked header, whatever its size.
struct SnapshotOpening {
    let layer: SyntheticLayer
    let gibibytes: Int

    func measure() async throws -> [String: Double] {
        let folder = FileManager.default.temporaryDirectory.appending(path: "codec-benchmark-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let path = folder.appending(path: "large.tkv").path
        try await write(to: path)

        var opening: [Double] = []
        var using: [Double] = []
        for _ in 0..<51 {
            opening.append(try seconds { _ = try SnapshotReader(path: path, registry: .standard) })
            let start = ContinuousClock.now
            let cache = try await SnapshotReader(path: path, registry: .standard).cache(verifyingPages: false)
            let duration = ContinuousClock.now - start
            precondition(cache.tokenCount > 0)
            using.append(Double(duration.components.attoseconds) * 1e-18 + Double(duration.components.seconds))
        }
        let verifying = try await verificationSeconds(path: path)
        let bytes = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int ?? 0
        let result = [
            "bytes": Double(bytes),
            "openMilliseconds": median(opening) * 1e3,
            "mapCacheMilliseconds": median(using) * 1e3,
            "verifyGBps": Double(bytes) / 1e9 / verifying,
        ]
        print(
            String(
                format:
                    "\na snapshot of %.2f GB, page cache warm: opened in %.3f ms; opened and its cache mapped, tokens "
                    + "and window read, in %.3f ms; every byte verified at %.1f GB/s (all processors)",
                Double(bytes) / 1e9,
                median(opening) * 1e3,
                median(using) * 1e3,
                Double(bytes) / 1e9 / verifying
            )
        )
        return result
    }

    private func verificationSeconds(path: String) async throws -> Double {
        var times: [Double] = []
        for _ in 0..<3 {
            let start = ContinuousClock.now
            try await SnapshotReader(path: path, registry: .standard).verify()
            let duration = ContinuousClock.now - start
            times.append(Double(duration.components.attoseconds) * 1e-18 + Double(duration.components.seconds))
        }
        return median(times)
    }

    /// Layers of the same numbers, as many as make the size.
    private func write(to path: String) async throws {
        let count = max(gibibytes << 30, 1) / layer.byteCount
        let cache = try KVCache(
            layers: [KVCacheLayer](repeating: layer.cacheLayer, count: max(count, 1)),
            tokens: (0..<Int32(layer.tokens)).map { $0 }
        )
        let compressed = try await CompressedCache(compressing: cache, recipe: Recipe("f16"))
        try await SnapshotWriter(replacesExisting: true).write(compressed, to: path)
    }
}
