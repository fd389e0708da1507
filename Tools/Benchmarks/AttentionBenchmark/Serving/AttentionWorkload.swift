import BenchmarkSupport
import ThinkCompress

/// Attention of new queries over rotating layers.
final class AttentionWorkload: Workload {
    private let attention: Attention
    private let queries: KVTensor
    private let workers: WorkerThreads
    private var layers: RotatingLayers
    private var output: [Float]

    init(
        recipe: Recipe,
        attention: Attention,
        queryCount: Int,
        headDimension: Int = SyntheticLayer.headDimension,
        isSharp: Bool = false,
        tokens: Int,
        workers: WorkerThreads
    ) async throws {
        guard queryCount <= tokens else { throw ServingError("\(queryCount) queries for \(tokens) tokens") }
        self.attention = attention
        self.workers = workers
        queries = SyntheticLayer.newQueries(count: queryCount, headDimension: headDimension, isSharp: isSharp)
        layers = try await RotatingLayers(recipe: recipe, tokens: tokens, headDimension: headDimension)
        output = [Float](repeating: 0, count: queries.heads * queries.tokens * queries.headDimension)
        try attend(over: layers.next())
    }

    func run() throws -> RoundResult {
        // Not measured: waking the workers. The layer is out of the processor's caches when its turn comes again.
        try attend(over: layers.next())
        // With many queries one layer takes long, and no layer stays in the caches either way.
        let leastCalls = queries.tokens == 1 ? layers.layers.count : 1
        let microseconds = try Round.microseconds(leastCalls: leastCalls) { try attend(over: layers.next()) }
        return RoundResult(microseconds: microseconds, byteCount: layers.layers[0].packedByteCount)
    }

    func check() throws -> Double {
        let layer = layers.layers[0]
        try attend(over: layer)
        return ReferenceAttention(layer: layer, queries: queries).relativeError(of: output)
    }

    private func attend(over layer: CompressedLayer) throws {
        try attention.attend(queries, over: layer, using: workers, into: &output)
    }
}
