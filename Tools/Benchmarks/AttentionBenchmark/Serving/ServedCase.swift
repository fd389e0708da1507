import ThinkCompress

/// A case by its name; see `ServeCommand`.
struct ServedCase {
    private let kind: String
    /// Queries, steps, newer tokens, or the dimension of heads.
    private let count: Int
    private let recipe: Recipe
    private let precision: Attention.Precision

    init(_ name: String) throws {
        var parts = name.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        var body = parts.removeLast()
        precision = try Self.takePrecision(&body)
        recipe = try Recipe(body)
        kind = parts.first ?? "attention"
        if ["queries", "decode", "heads", "boundary", "boundary-alone"].contains(kind) {
            let counts = kind.hasPrefix("boundary") ? 0...4096 : 1...65536
            guard parts.count == 2, let count = Int(parts[1]), counts.contains(count) else {
                throw ServingError("\(kind):N:RECIPE has a number from \(counts.lowerBound) to \(counts.upperBound)")
            }
            self.count = count
        } else {
            guard parts.count <= 1 else { throw ServingError("unknown case: \(name)") }
            count = 1
        }
    }

    private static func takePrecision(_ body: inout String) throws -> Attention.Precision {
        let parts = body.split(separator: "@", omittingEmptySubsequences: false).map(String.init)
        body = parts[0]
        switch parts.count > 1 ? parts[1] : "automatic" {
        case "automatic": return .automatic
        case "fast": return .fast
        case "precise": return .precise
        case let other: throw ServingError("unknown precision: \(other)")
        }
    }

    /// Prepares the case.
    ///
    /// - Parameter model: what the cases of a whole model need.
    func workload(tokens: Int, workers: WorkerThreads, model: ServedModel?) async throws -> any Workload {
        let attention = Attention(precision: precision)
        if let snapshot = SnapshotStepWorkload.Source(rawValue: kind) {
            return try await SnapshotStepWorkload(
                source: snapshot,
                recipe: recipe,
                attention: attention,
                tokens: tokens,
                workers: workers
            )
        }
        if let action = SnapshotFileWorkload.Action(rawValue: kind) {
            return try await SnapshotFileWorkload(action: action, recipe: recipe, tokens: tokens)
        }
        if let action = CodecWorkload.Action(rawValue: kind) {
            return try CodecWorkload(action: action, recipe: recipe, tokens: tokens, threads: workers.threadCount)
        }
        switch kind {
        case "attention", "sharp", "queries":
            return try await AttentionWorkload(
                recipe: recipe,
                attention: attention,
                queryCount: count,
                isSharp: kind == "sharp",
                tokens: tokens,
                workers: workers
            )
        case "heads":
            return try await AttentionWorkload(
                recipe: recipe,
                attention: attention,
                queryCount: 1,
                headDimension: count,
                tokens: tokens,
                workers: workers
            )
        case "boundary", "boundary-alone":
            guard kind == "boundary" || workers.threadCount == 1 else {
                throw ServingError("without workers there is one thread")
            }
            return try await BoundaryWorkload(
                recipe: recipe,
                attention: attention,
                newerTokens: count,
                tokens: tokens,
                threads: workers.threadCount,
                hasWorkers: kind == "boundary"
            )
        case "read":
            return try PlainReadWorkload(recipe: recipe, tokens: tokens, threads: workers.threadCount)
        case "prefill", "decode":
            guard let model else { throw ServingError("\(kind) needs a model and a file of tokens") }
            let threads = workers.threadCount
            if kind == "prefill" {
                return try await PrefillWorkload(served: model, recipe: recipe, tokens: tokens, threads: threads)
            }
            return try await DecodeWorkload(
                served: model,
                recipe: recipe,
                tokens: tokens,
                steps: count,
                threads: threads
            )
        default:
            throw ServingError("unknown case: \(kind)")
        }
    }
}
