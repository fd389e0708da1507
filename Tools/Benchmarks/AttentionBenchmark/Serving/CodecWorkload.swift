import BenchmarkSupport
import ThinkCompress

/// Compressing or restoring a layer, or copying as many bytes: a layer of its own on every thread.
final class CodecWorkload: Workload {
    /// By the prefix of the case's name.
    enum Action: String {
        case pack, unpack, memcpy
    }

    private let action: Action
    private let works: [CodecWork]

    init(action: Action, recipe: Recipe, tokens: Int, threads: Int) throws {
        self.action = action
        works = (0..<threads).map { _ in CodecWork(layer: SyntheticLayer(tokens: tokens), recipe: recipe) }
        _ = try seconds()
    }

    func run() throws -> RoundResult {
        var elapsed = 0.0
        var times = 0
        while elapsed < Round.leastSeconds {
            elapsed += try seconds()
            times += 1
        }
        return RoundResult(
            microseconds: elapsed * 1e6 / Double(times),
            byteCount: works.count * works[0].byteCount
        )
    }

    private func seconds() throws -> Double {
        if action == .pack {
            for work in works { work.discard() }
        }
        return try GatedThreads.seconds(count: works.count) { [action, works] member in
            switch action {
            case .pack: try works[member].compress()
            case .unpack: try works[member].restore()
            case .memcpy: works[member].copy()
            }
        }
    }
}
