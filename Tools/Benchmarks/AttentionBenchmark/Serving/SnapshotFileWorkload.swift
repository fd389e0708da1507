import BenchmarkSupport
import Foundation
import ThinkCompress

/// What is done with a snapshot's file as a whole.
final class SnapshotFileWorkload: Workload {
    /// By the prefix of the case's name.
    enum Action: String {
        /// Open it, touching no page.
        case open
        /// Open it and verify every byte.
        case verified
        /// `read` it into memory that has been used before.
        case file
    }

    private let action: Action
    private let file: TemporarySnapshot
    private let byteCount: Int
    private var buffer: [UInt8] = []

    init(action: Action, recipe: Recipe, tokens: Int) async throws {
        self.action = action
        file = try await TemporarySnapshot.write(recipe: recipe, tokens: tokens).file
        byteCount = try SnapshotReader(path: file.path).fileByteCount
        if action == .file { buffer = [UInt8](repeating: 1, count: byteCount) }
        _ = try await run()
    }

    func run() async throws -> RoundResult {
        var elapsed = 0.0
        var times = 0
        while elapsed < Round.leastSeconds {
            let start = ContinuousClock.now
            switch action {
            case .open: _ = try SnapshotReader(path: file.path)
            case .verified: try await SnapshotReader(path: file.path).verify()
            case .file: try readFile()
            }
            elapsed += (ContinuousClock.now - start).inSeconds
            times += 1
        }
        return RoundResult(microseconds: elapsed * 1e6 / Double(times), byteCount: byteCount)
    }

    private func readFile() throws {
        let descriptor = open(file.path, O_RDONLY | O_CLOEXEC)
        defer { close(descriptor) }
        var filled = 0
        while filled < byteCount {
            let count = buffer.withUnsafeMutableBytes { read(descriptor, $0.baseAddress! + filled, byteCount - filled) }
            guard count > 0 else { throw ServingError("\(file.path) can't be read") }
            filled += count
        }
    }
}
