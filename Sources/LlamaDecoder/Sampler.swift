internal import ComputeRuntime
internal import Foundation

/// Chooses tokens by their logits.
public struct Sampler: Sendable {
    /// What logits are divided by; 0 takes the likeliest token always.
    public let temperature: Double
    /// The likeliest tokens that have this probability together are chosen from.
    public let topP: Double
    private var random: SplitMix64

    /// - Parameters:
    ///   - temperature: 0 or more.
    ///   - topP: more than 0, up to 1.
    ///   - seed: determines the choices.
    public init(temperature: Double = 0, topP: Double = 1, seed: UInt64 = 0) {
        precondition(temperature >= 0 && topP > 0 && topP <= 1, "temperature and top-p are out of range")
        self.temperature = temperature
        self.topP = topP
        random = SplitMix64(seed: seed)
    }

    /// The next token; of equal logits the lowest id counts as likeliest.
    ///
    /// - Parameter logits: one per token of the vocabulary.
    /// - Throws: `ModelError` if no logit is a number.
    public mutating func choose(_ logits: some RandomAccessCollection<Float>) throws(ModelError) -> Int32 {
        var best: Int32 = -1
        var highest = -Float.infinity
        for (id, logit) in logits.enumerated() where logit > highest {
            best = Int32(id)
            highest = logit
        }
        guard best >= 0, highest.isFinite else {
            throw ModelError(.damaged, "the model's logits are not finite; its weights are damaged")
        }
        guard temperature > 0 else { return best }
        var candidates: [(id: Int32, weight: Double)] = []
        var total = 0.0
        for (id, logit) in logits.enumerated() {
            let weight = exp(Double(logit - highest) / temperature)
            guard weight > 0 else { continue }
            candidates.append((Int32(id), weight))
            total += weight
        }
        if topP < 1 {
            candidates.sort { ($1.weight, $0.id) < ($0.weight, $1.id) }
            var sum = 0.0
            let count = candidates.prefix { candidate in
                defer { sum += candidate.weight }
                return sum < topP * total
            }.count
            candidates.removeLast(candidates.count - count)
            total = candidates.reduce(0) { $0 + $1.weight }
        }
        var rest = random.nextFraction() * total
        for candidate in candidates {
            rest -= candidate.weight
            if rest < 0 { return candidate.id }
        }
        return candidates.last?.id ?? best
    }
}
