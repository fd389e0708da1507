import BenchmarkSupport
import Foundation
import ThinkCompress

/// Attention through the functions of the C library and the same in Swift, in turns in one process, over the same mapped
/// snapshot.
///
/// The functions are linked into this program, so that both sides run the same kernels at the same addresses, and what
/// differs is the call alone: calls of a library that is loaded beside this program, with kernels of its own, took from 3 %
/// less to 6 % more, differently in every process.
final class BoundaryWorkload: Workload {
    /// Calls of each side in a round.
    private static let calls = 400
    /// Calls of a side's turn with more than one thread, after a pause that is longer than workers spin before they sleep:
    /// the other side's would take a processor.
    private static let callsOfTurn = 10
    private static let pause = 0.003

    private let attention: Attention
    private let queries = SyntheticLayer.newQueries(count: 1)
    private let newer: KVCacheLayer?
    private let threads: Int
    private let hasWorkers: Bool
    private let file: TemporarySnapshot
    private var workers: WorkerThreads
    private var cache: CompressedCache
    private var library: LibraryCache
    private var output: [Float]
    private var layer = 0

    /// - Parameter hasWorkers: whether the calls through C have workers, as many as those in Swift.
    init(
        recipe: Recipe,
        attention: Attention,
        newerTokens: Int,
        tokens: Int,
        threads: Int,
        hasWorkers: Bool
    ) async throws {
        self.attention = attention
        self.threads = threads
        self.hasWorkers = hasWorkers
        newer = newerTokens == 0 ? nil : SyntheticLayer(tokens: newerTokens).cacheLayer
        file = try await TemporarySnapshot.write(recipe: recipe, tokens: tokens).file
        output = [Float](repeating: 0, count: queries.heads * queries.headDimension)
        (workers, cache, library) = try await Self.sides(file, queries, newer, threads, hasWorkers: hasWorkers)
        for layer in cache.layers.indices {
            try attendInSwift(layer)
            let expected = output
            try attendInC(layer)
            guard output == expected else { throw ServingError("the output through C is another than in Swift") }
        }
    }

    /// What Swift attends with, and what C does.
    private static func sides(
        _ file: TemporarySnapshot,
        _ queries: KVTensor,
        _ newer: KVCacheLayer?,
        _ threads: Int,
        hasWorkers: Bool
    ) async throws -> (WorkerThreads, CompressedCache, LibraryCache) {
        (
            WorkerThreads(threadCount: threads),
            try await SnapshotReader(path: file.path).cache(),
            try LibraryCache(
                snapshot: file.path,
                queries: queries,
                newer: newer,
                threads: hasWorkers ? threads : nil
            )
        )
    }

    func run() async throws -> RoundResult {
        // Anew in every round: a call takes up to 2 % more or less time by where the memory that it works in happens to lie.
        (workers, cache, library) = try await Self.sides(file, queries, newer, threads, hasWorkers: hasWorkers)
        for layer in cache.layers.indices {
            try attendInSwift(layer)
            try attendInC(layer)
        }
        var inSwift: [Double] = []
        var inC: [Double] = []
        let turns = threads > 1 ? Self.calls / Self.callsOfTurn : Self.calls
        for turn in 0..<2 * turns {
            // Whoever is first in a pair is second in the next.
            if [0, 3].contains(turn % 4) {
                inSwift.append(try turnMedian(attendInSwift))
            } else {
                inC.append(try turnMedian(attendInC))
            }
        }
        // Turns beside each other are compared: what slows the machine down meanwhile slows down both.
        let swift = median(inSwift)
        let added = median(zip(inC, inSwift).map { $0 - $1 })
        return RoundResult(microseconds: swift + added, swiftMicroseconds: swift)
    }

    private func turnMedian(_ call: (_ layer: Int) throws -> Void) rethrows -> Double {
        guard threads > 1 else { return try seconds { try call(next()) } * 1e6 }
        Thread.sleep(forTimeInterval: Self.pause)
        // Not measured: waking the workers.
        try call(next())
        return median(try (0..<Self.callsOfTurn).map { _ in try seconds { try call(next()) } * 1e6 })
    }

    private func next() -> Int {
        layer = (layer + 1) % cache.layers.count
        return layer
    }

    private func attendInSwift(_ layer: Int) throws {
        try attention.attend(queries, over: cache.layers[layer], followedBy: newer, using: workers, into: &output)
    }

    private func attendInC(_ layer: Int) throws {
        try library.attend(layer: layer, into: &output)
    }
}
