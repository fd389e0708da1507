internal import ByteStorage
internal import CachePacking
internal import ComputeRuntime
internal import KVCacheCodecs
internal import KVCacheModel

/// Which tokens get finer steps: a few get most of the attention, and their errors cost most.
///
/// All in float64 and in a fixed order: Formats/archive.md, "Writing".
enum TokenShifts {
    /// From which multiple of the median attention on the step is halved once, twice and three times.
    private static let multiples: [Double] = [4, 16, 64]
    /// Without queries so many tokens get a finer step, and how fine.
    private static let distantTokens = 16
    private static let distantShift: UInt8 = 2
    /// Layers whose heads are computed at a time.
    private static let batch = 4

    /// By the attention that tokens get from the cache's last queries, over all layers and query heads.
    ///
    /// - Parameters:
    ///   - window: queries that are looked at.
    ///   - body: the tokens whose median counts.
    /// - Throws: `CodecError` if a query is not finite; `CancellationError`.
    static func byAttention(
        _ cache: KVCache,
        window: Int,
        body: Range<Int>,
        progress: ProgressHandler?
    ) async throws -> [UInt8] {
        let attention = try await sums(cache, progress: progress) { statistics, head in
            guard let queries = statistics.source.queries else { return [] }
            let observed = queries[tokens: max(queries.tokens - window, 0)..<queries.tokens]
            return try WindowAttention(statistics, head: head, queries: observed).weights
        }
        let ordered = attention[body].sorted()
        guard let median = ordered.dropFirst((ordered.count - 1) / 2).first, median > 0 else {
            return [UInt8](repeating: 0, count: attention.count)
        }
        return attention.map { weight in UInt8(multiples.count { weight >= $0 * median }) }
    }

    /// By how far tokens' keys lie from the mean key, over all layers and KV heads.
    static func byDistance(_ cache: KVCache, body: Range<Int>, progress: ProgressHandler?) async throws -> [UInt8] {
        let distances = try await sums(cache, progress: progress) { statistics, head in
            let keys = try FiniteRows(statistics, keysOfHead: head)
            let first = statistics.tokenCount - keys.count
            let rows = body.clamped(to: first..<statistics.tokenCount)
            guard !rows.isEmpty else { return [Double](repeating: 0, count: keys.count) }
            var means = [Double](repeating: 0, count: keys.dimension)
            for token in rows {
                for channel in means.indices { means[channel] += Double(keys[token - first, channel]) }
            }
            for channel in means.indices { means[channel] /= Double(rows.count) }
            var distances = [Double](repeating: 0, count: keys.count)
            var total = 0.0
            for row in distances.indices {
                for channel in means.indices {
                    let distance = Double(keys[row, channel]) - means[channel]
                    distances[row] += distance * distance
                }
                if rows.contains(first + row) { total += distances[row] }
            }
            return total > 0 ? distances.map { $0 / total } : distances
        }
        var shifts = [UInt8](repeating: 0, count: distances.count)
        let farthest = body.sorted { (distances[$1], $0) < (distances[$0], $1) }
        for token in farthest.prefix(distantTokens) { shifts[token] = distantShift }
        return shifts
    }

    /// Adds numbers of all heads' rows up by token, layer by layer and head by head.
    private static func sums(
        _ cache: KVCache,
        progress: ProgressHandler?,
        of numbers: @escaping @Sendable (LayerStatistics, Int) throws -> [Double]
    ) async throws -> [Double] {
        var sums = [Double](repeating: 0, count: cache.tokenCount)
        let layers = cache.layers.indices.filter { !cache.layers[$0].isEmpty }
        for start in stride(from: 0, to: layers.count, by: batch) {
            let jobs = layers[start..<min(start + batch, layers.count)].flatMap { layer in
                (0..<cache.geometry.layers[layer].kvHeads).map { (layer: layer, head: $0) }
            }
            let slots = Slots<[Double]>(count: jobs.count)
            try await forEachConcurrently(count: jobs.count) { index in
                let (layer, head) = jobs[index]
                slots[index] = try numbers(
                    LayerStatistics(
                        layer: layer,
                        geometry: cache.geometry.layers[layer],
                        source: cache.layers[layer],
                        tokenCount: cache.tokenCount
                    ),
                    head
                )
            }
            for rows in slots.values {
                let first = cache.tokenCount - rows.count
                for (row, number) in rows.enumerated() { sums[first + row] += number }
            }
            progress?(Double(start) / Double(layers.count))
        }
        return sums
    }
}
