import BenchmarkSupport
import ThinkCompress

/// A decode step over all layers of a cache in memory, or in a mapped snapshot.
final class SnapshotStepWorkload: Workload {
    /// Where the cache lies, by the prefix of the case's name.
    enum Source: String {
        case memory, mapped
        /// In a snapshot that is opened for every step.
        case opened
    }

    private let source: Source
    private let attention: Attention
    private let workers: WorkerThreads
    private let file: TemporarySnapshot
    private let cache: CompressedCache?
    private let queries = SyntheticLayer.newQueries(count: 1)
    private var output: [Float]

    init(source: Source, recipe: Recipe, attention: Attention, tokens: Int, workers: WorkerThreads) async throws {
        self.source = source
        self.attention = attention
        self.workers = workers
        output = [Float](repeating: 0, count: queries.heads * queries.headDimension)
        let written = try await TemporarySnapshot.write(recipe: recipe, tokens: tokens)
        file = written.file
        switch source {
        case .memory: cache = written.cache
        case .mapped: cache = try await Self.open(file)
        case .opened: cache = nil
        }
        _ = try await run()
    }

    func run() async throws -> RoundResult {
        var elapsed = 0.0
        var steps = 0
        if let cache { try step(over: cache) }  // not measured: waking the workers
        while elapsed < Round.leastSeconds {
            let start = ContinuousClock.now
            let stepped: CompressedCache
            if let cache {
                stepped = cache
            } else {
                workers.wake()
                stepped = try await Self.open(file)
            }
            try step(over: stepped)
            // Not measured: closing what was opened.
            withExtendedLifetime(stepped) { elapsed += (ContinuousClock.now - start).inSeconds }
            steps += 1
        }
        return RoundResult(microseconds: elapsed * 1e6 / Double(steps * TemporarySnapshot.layers))
    }

    func check() async throws -> Double {
        let cache: CompressedCache
        if let open = self.cache { cache = open } else { cache = try await Self.open(file) }
        try step(over: cache)
        // The output is the last layer's.
        return ReferenceAttention(layer: cache.layers[TemporarySnapshot.layers - 1], queries: queries)
            .relativeError(of: output)
    }

    private static func open(_ file: TemporarySnapshot) async throws -> CompressedCache {
        try await SnapshotReader(path: file.path).cache(verifyingPages: false)
    }

    private func step(over cache: CompressedCache) throws {
        for layer in cache.layers {
            try attention.attend(queries, over: layer, using: workers, into: &output)
        }
    }
}
