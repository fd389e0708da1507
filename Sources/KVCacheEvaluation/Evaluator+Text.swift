internal import ArchiveCoding
internal import CacheArchives
internal import CachePacking
internal import Foundation
internal import KVCacheCodecs
internal import KVCacheModel
internal import KVCacheQuality
internal import KVSnapshots
internal import LlamaDecoder

extension Evaluator {
    /// Measures the tokens that follow a compressed prefix, which has not seen them.
    ///
    /// However many trials there are, their prefixes lie about evenly over the text. Tokens of the continuation see each
    /// other in full precision, up to 256 of them at a time.
    func measureText(
        prefix: Int,
        continuation: Int,
        trial: Int,
        recipes: [Recipe],
        take: (Recipe, _ chosen: String?, TrialOutcome) throws -> Void
    ) async throws {
        let length = prefix - text.beginning.count + continuation + 1
        // Multiples of the golden ratio, without their whole part.
        let share = (Double(trial + 1) * 0.618_033_988_749_895 + Double(seed % 1000) / 1000)
            .truncatingRemainder(dividingBy: 1)
        let start = Int(Double(text.tokens.count - length) * share)
        let tokens = text.beginning + text.tokens[start..<start + length]
        let following = Array(tokens[prefix..<prefix + continuation])
        let successors = tokens[prefix + 1..<prefix + continuation + 1]

        let full = try await decoder.fullCache(
            Array(tokens[..<prefix]),
            queryWindow: max(recipes.map(\.observationWindow).max() ?? 0, Recipe.defaultObservationWindow),
            statistics: recipes.reduce(into: []) { $0.formUnion($1.modelStatistics) },
            metadata: metadata
        )
        let measured = try full.held(
            by: decoder.model.configuration,
            lastQueries: Recipe.defaultObservationWindow
        )
        let reference = try await predictions(after: full, recipe: try Self.fullPrecision(), following: following).rows
        for recipe in recipes {
            let (cache, archive, rows) = try await predictions(after: full, recipe: recipe, following: following)
            let writer = SnapshotWriter()
            let size =
                if let archive { try writer.size(of: archive) } else { try await writer.size(of: cache) }
            let peerBytes = recipe.peer?.byteCount(of: measured)
            let quality = try await quality(of: cache, original: measured)
            var outcome = TextOutcome(
                // A peer's file: its rows and the tokens' ids.
                fileBytes: peerBytes.map { $0 + 4 * cache.tokenCount } ?? size.fileBytes,
                payloadBytes: peerBytes ?? size.payloadBytes,
                values: measured.valueCount,
                tokens: continuation,
                divergence: 0,
                agreements: 0,
                surprise: 0,
                fullSurprise: 0,
                attentionError: quality.total.attention.map(Double.init),
                layerAttentionErrors: quality.layers.compactMap { $0.attention.map(Double.init) }
            )
            for ((exact, lossy), successor) in zip(zip(reference, rows), successors) {
                outcome.divergence += exact.divergence(of: lossy)
                outcome.agreements += exact.likeliest == lossy.likeliest ? 1 : 0
                outcome.surprise -= lossy.logarithms[Int(successor)]
                outcome.fullSurprise -= exact.logarithms[Int(successor)]
            }
            let chosen = recipe.peer == nil ? (archive.map { $0.recipe } ?? cache.recipe)?.description : nil
            try take(recipe, chosen, .text(sums: outcome))
        }
    }

    private func predictions(
        after full: KVCache,
        recipe: Recipe,
        following: [Int32]
    ) async throws -> (cache: CompressedCache, archive: CacheArchive?, rows: [Prediction]) {
        let (cache, archive) = try await compressed(full, by: recipe)
        var copy = cache
        let logits = try decoder.extend(&copy, with: following, logits: .all)
        let width = decoder.model.configuration.vocabularySize
        let rows = try following.indices.map { try Prediction(logits: logits[$0 * width..<($0 + 1) * width]) }
        return (cache, archive, rows)
    }

    private func quality(of cache: CompressedCache, original: KVCache) async throws -> CompressionQuality {
        var measurement = QualityMeasurement()
        for (index, layer) in original.layers.enumerated() {
            try await measurement.add(
                layer,
                compressed: cache.layers[index],
                slidingWindow: decoder.model.configuration.slidingWindows[index]
            )
        }
        return measurement.quality
    }
}

/// What a model predicts after a token.
struct Prediction: Sendable {
    /// Log probability of every token, in nats.
    let logarithms: [Double]

    /// The likeliest token.
    let likeliest: Int

    /// - Throws: `ModelError` if a logit is not finite.
    init(logits: ArraySlice<Float>) throws(ModelError) {
        guard logits.allSatisfy(\.isFinite) else {
            throw ModelError(.damaged, "the model's logits are not finite; its weights are damaged")
        }
        let highest = Double(logits.max() ?? 0)
        let total = log(logits.reduce(0) { $0 + exp(Double($1) - highest) }) + highest
        let logarithms = logits.map { Double($0) - total }
        self.logarithms = logarithms
        likeliest = logarithms.indices.max { logarithms[$0] < logarithms[$1] } ?? 0
    }

    /// The Kullback-Leibler divergence of another prediction from this one, in nats.
    func divergence(of other: Prediction) -> Double {
        zip(logarithms, other.logarithms).reduce(0) { $0 + exp($1.0) * ($1.0 - $1.1) }
    }
}
