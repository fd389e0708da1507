internal import EngineFormats
internal import Foundation

extension RotaryEmbedding {
    /// How positions beyond those of training are reached, as `transformers` 5 computes it.
    public enum Scaling: Sendable, Equatable {
        case none
        /// All frequencies divided by the factor.
        case linear(factor: Double)
        /// Wavelengths beyond the positions of training are stretched by `factor`, short ones are kept, and those between
        /// are interpolated: Llama 3.1.
        case llama3(factor: Double, lowFrequencyFactor: Double, highFrequencyFactor: Double, originalPositions: Int)
        /// The base grows with the length of texts that are longer than those of training.
        case dynamic(factor: Double, originalPositions: Int)
        case yarn(YaRN)
        case longrope(LongRoPE)
        /// Each pair's frequency divided by a factor of its own.
        case divided(by: [Double])
    }

    /// Frequencies between two numbers of rotations are interpolated, and attention is sharpened: arXiv 2309.00071.
    public struct YaRN: Sendable, Equatable {
        public let factor: Double
        public let originalPositions: Int
        /// Pairs that turn more often than this over the positions of training are kept.
        public let fastRotations: Double
        /// Pairs that turn less often than this are stretched by the whole factor.
        public let slowRotations: Double
        /// Whether the pairs between which it is interpolated are rounded to whole ones.
        public let truncates: Bool
        /// What cosines and sines are multiplied by; nil where it follows from the factor.
        public let attentionFactor: Double?
        /// `mscale` and `mscale_all_dim`, where both are there and decide about the attention factor.
        public let scales: [Double]

        static let fastRotations = 32.0
        static let slowRotations = 1.0

        func frequencies(base: Double, headDimension: Int) -> [Float] {
            func pair(ofRotations rotations: Double) -> Double {
                Double(headDimension) * log(Double(originalPositions) / (rotations * 2 * .pi)) / (2 * log(base))
            }
            var (low, high) = (pair(ofRotations: fastRotations), pair(ofRotations: slowRotations))
            if truncates { (low, high) = (low.rounded(.down), high.rounded(.up)) }
            low = max(low, 0)
            high = min(high, Double(headDimension - 1))
            if low == high { high += 0.001 }
            return RotaryEmbedding.powers(of: base, headDimension: headDimension).enumerated().map { index, power in
                let ramp = min(max((Float(index) - Float(low)) / Float(high - low), 0), 1)
                let kept = 1 - ramp
                return 1 / (Float(factor) * power) * (1 - kept) + 1 / power * kept
            }
        }

        fileprivate var computedAttentionFactor: Double {
            func scaled(_ scale: Double) -> Double { factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1 }
            if let attentionFactor { return attentionFactor }
            return scales.count == 2 ? scaled(scales[0]) / scaled(scales[1]) : scaled(1)
        }
    }

    /// Each pair's frequency is divided by a factor of its own, which is another one in texts that are longer than those
    /// of training: arXiv 2402.13753.
    public struct LongRoPE: Sendable, Equatable {
        public let shortFactors: [Double]
        public let longFactors: [Double]
        public let originalPositions: Int
        /// How many times longer texts may be; nil for as many times as the model has positions.
        public let factor: Double?
        let maximumPositions: Int
        /// What cosines and sines are multiplied by; nil where it follows from the lengths.
        public let attentionFactor: Double?

        fileprivate var computedAttentionFactor: Double {
            if let attentionFactor { return attentionFactor }
            let factor = factor ?? Double(maximumPositions) / Double(originalPositions)
            return factor <= 1 ? 1 : (1 + log(factor) / log(Double(originalPositions))).squareRoot()
        }
    }

    /// What cosines and sines, and so queries and keys, are multiplied by.
    var attentionFactor: Float {
        switch scaling {
        case .yarn(let yarn): Float(yarn.computedAttentionFactor)
        case .longrope(let longrope): Float(longrope.computedAttentionFactor)
        case .none, .linear, .llama3, .dynamic, .divided: 1
        }
    }
}

extension RotaryEmbedding.Scaling {
    init(_ parameters: RotaryParameters, path: String) throws(ModelError) {
        func required<Value>(_ value: Value?, _ name: String) throws(ModelError) -> Value {
            guard let value else { throw ModelError(.damaged, path: path, "\(parameters.field): \(name) is missing") }
            return value
        }
        func originalPositions() throws(ModelError) -> Int {
            try required(parameters.originalPositions, "original_max_position_embeddings")
        }
        switch parameters.type ?? "default" {
        case "default":
            self = parameters.pairFactors.map { .divided(by: $0) } ?? .none
        case "linear":
            self = .linear(factor: try required(parameters.factor, "factor"))
        case "llama3":
            self = .llama3(
                factor: try required(parameters.factor, "factor"),
                lowFrequencyFactor: try required(parameters.lowFrequencyFactor, "low_freq_factor"),
                highFrequencyFactor: try required(parameters.highFrequencyFactor, "high_freq_factor"),
                originalPositions: try originalPositions()
            )
        case "dynamic":
            self = .dynamic(
                factor: try required(parameters.factor, "factor"),
                originalPositions: try required(parameters.maximumPositions, "max_position_embeddings")
            )
        case "yarn":
            let original = try originalPositions()
            let maximum = try required(parameters.maximumPositions, "max_position_embeddings")
            let scales = [parameters.mscale, parameters.mscaleAllDimensions].compactMap { $0 == 0 ? nil : $0 }
            let decides = parameters.attentionFactor == nil && scales.count == 2
            self = .yarn(
                RotaryEmbedding.YaRN(
                    factor: parameters.factor ?? Double(maximum) / Double(original),
                    originalPositions: original,
                    fastRotations: Self.given(parameters.betaFast) ?? RotaryEmbedding.YaRN.fastRotations,
                    slowRotations: Self.given(parameters.betaSlow) ?? RotaryEmbedding.YaRN.slowRotations,
                    truncates: parameters.truncates ?? true,
                    attentionFactor: parameters.attentionFactor,
                    scales: decides ? scales : []
                )
            )
        case "longrope":
            self = .longrope(
                RotaryEmbedding.LongRoPE(
                    shortFactors: try required(parameters.shortFactors, "short_factor"),
                    longFactors: try required(parameters.longFactors, "long_factor"),
                    originalPositions: try originalPositions(),
                    factor: parameters.factor,
                    maximumPositions: try required(parameters.maximumPositions, "max_position_embeddings"),
                    attentionFactor: parameters.attentionFactor
                )
            )
        case let type:
            throw ModelError(
                .unsupported,
                path: path,
                "\(parameters.field): rope_type '\(type.abbreviated)' is not supported; supported are default, linear, "
                    + "llama3, dynamic, yarn, longrope"
            )
        }
    }

    /// 0 is the same as nothing, as for `transformers`.
    private static func given(_ number: Double?) -> Double? { number == 0 ? nil : number }

    /// Why nothing can be computed by the scaling, or nil.
    func fault(headDimension: Int, base: Double) -> String? {
        func isPositive(_ number: Double) -> Bool { number > 0 && number.isFinite }
        func fault(ofFactor factor: Double) -> String? {
            isPositive(factor) ? nil : "factor is \(factor), must be positive"
        }
        func fault(ofPositions positions: Int) -> String? {
            positions > 0 ? nil : "original_max_position_embeddings is \(positions), must be positive"
        }
        func fault(ofAttention factor: Double?) -> String? {
            factor.map(isPositive) ?? true ? nil : "attention_factor is \(factor ?? 0), must be positive"
        }
        func fault(of factors: [Double], _ name: String) -> String? {
            if factors.count != headDimension / 2 {
                return "\(name) has \(factors.count) numbers, and heads have \(headDimension / 2) pairs of channels"
            }
            return factors.first { !isPositive($0) }.map { "\(name) has \($0), must be positive" }
        }
        switch self {
        case .none: return nil
        case .linear(let factor): return fault(ofFactor: factor)
        case .llama3(let factor, let low, let high, let positions):
            guard low > 0, high > low, high.isFinite else {
                return "low_freq_factor \(low) must be positive and below high_freq_factor \(high)"
            }
            return fault(ofFactor: factor) ?? fault(ofPositions: positions)
        case .dynamic(let factor, let positions):
            guard factor >= 1, factor.isFinite else { return "factor is \(factor), must be 1 or more" }
            guard headDimension > 2 else { return "heads of dimension 2 can't be scaled by dynamic" }
            return positions > 0 ? nil : "max_position_embeddings is \(positions), must be positive"
        case .yarn(let yarn):
            guard base > 1 else { return "rope_theta is 1, and yarn needs more" }
            guard isPositive(yarn.slowRotations), isPositive(yarn.fastRotations) else {
                return "beta_fast \(yarn.fastRotations) and beta_slow \(yarn.slowRotations) must be positive"
            }
            if let scale = yarn.scales.first(where: { !isPositive($0) }) {
                return "mscale and mscale_all_dim must be positive, not \(scale)"
            }
            return fault(ofPositions: yarn.originalPositions) ?? fault(ofFactor: yarn.factor)
                ?? fault(ofAttention: yarn.attentionFactor)
        case .longrope(let longrope):
            return fault(ofPositions: longrope.originalPositions)
                ?? longrope.factor.flatMap(fault(ofFactor:))
                ?? fault(of: longrope.shortFactors, "short_factor") ?? fault(of: longrope.longFactors, "long_factor")
                ?? fault(ofAttention: longrope.attentionFactor)
                ?? (longrope.originalPositions > 1
                    ? nil : "original_max_position_embeddings is 1, and longrope needs more")
        case .divided(let factors):
            return fault(of: factors, "the rotary factors")
        }
    }
}
