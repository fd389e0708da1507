internal import Foundation

/// Rotary position embedding: how far each pair of channels, c and c + headDimension / 2, is turned per position.
///
/// Source: arXiv 2104.09864; `llama3` as in Llama 3.1: wavelengths beyond the positions of training are stretched by
/// `factor`, short ones are kept, and those between are interpolated.
public struct RotaryEmbedding: Sendable, Equatable {
    /// How positions beyond those of training are reached.
    public enum Scaling: Sendable, Equatable {
        case none
        /// All frequencies divided by the factor.
        case linear(factor: Double)
        case llama3(factor: Double, lowFrequencyFactor: Double, highFrequencyFactor: Double, originalPositions: Int)
    }

    /// `rope_theta`.
    public let base: Double
    public let scaling: Scaling
    /// Radians per position for each pair of channels.
    public let frequencies: [Float]

    init(_ parameters: RotaryParameters, headDimension: Int, path: String) throws(ModelError) {
        let field = parameters.field
        func required<Value>(_ value: Value?, _ name: String) throws(ModelError) -> Value {
            guard let value else { throw ModelError(.damaged, path: path, "\(field): \(name) is missing") }
            return value
        }
        base = parameters.base ?? 10000
        guard base >= 1 else { throw ModelError(.damaged, path: path, "rope_theta is \(base), must be 1 or more") }
        let type = parameters.type ?? "default"
        switch type {
        case "default":
            scaling = .none
        case "linear":
            scaling = .linear(factor: try required(parameters.factor, "factor"))
        case "llama3":
            scaling = .llama3(
                factor: try required(parameters.factor, "factor"),
                lowFrequencyFactor: try required(parameters.lowFrequencyFactor, "low_freq_factor"),
                highFrequencyFactor: try required(parameters.highFrequencyFactor, "high_freq_factor"),
                originalPositions: try required(
                    parameters.originalPositions,
                    "original_max_position_embeddings"
                )
            )
        default:
            throw ModelError(
                .unsupported,
                path: path,
                "\(field): rope_type '\(type)' is not supported; supported are default, linear, llama3"
            )
        }
        if let fault = Self.fault(of: scaling) { throw ModelError(.damaged, path: path, "\(field): \(fault)") }
        frequencies = Self.frequencies(base: base, headDimension: headDimension, scaling: scaling)
    }

    private static func fault(of scaling: Scaling) -> String? {
        switch scaling {
        case .none: return nil
        case .linear(let factor):
            return factor > 0 && factor.isFinite ? nil : "factor is \(factor), must be positive"
        case .llama3(let factor, let low, let high, let positions):
            guard factor > 0, factor.isFinite else { return "factor is \(factor), must be positive" }
            guard low > 0, high > low, high.isFinite else {
                return "low_freq_factor \(low) must be positive and below high_freq_factor \(high)"
            }
            return positions > 0 ? nil : "original_max_position_embeddings is \(positions), must be positive"
        }
    }

    /// In float32 as the models were trained with: the products of large positions depend on it.
    private static func frequencies(base: Double, headDimension: Int, scaling: Scaling) -> [Float] {
        stride(from: 0, to: headDimension, by: 2).map { channel in
            let plain = 1 / Float(pow(base, Double(Float(channel) / Float(headDimension))))
            switch scaling {
            case .none:
                return plain
            case .linear(let factor):
                return plain / Float(factor)
            case .llama3(let factor, let low, let high, let positions):
                let wavelength = 2 * Float.pi / plain
                if wavelength > Float(Double(positions) / low) { return plain / Float(factor) }
                if wavelength < Float(Double(positions) / high) { return plain }
                let smooth = (Float(positions) / wavelength - Float(low)) / Float(high - low)
                return (1 - smooth) * plain / Float(factor) + smooth * plain
            }
        }
    }

    /// The scaling as text that identifies it, in the keys' order: Formats/snapshot.md, "METADATA", `rope.scaling`.
    var scalingText: String? {
        switch scaling {
        case .none: nil
        case .linear(let factor): "{\"factor\": \(factor), \"rope_type\": \"linear\"}"
        case .llama3(let factor, let low, let high, let positions):
            "{\"factor\": \(factor), \"high_freq_factor\": \(high), \"low_freq_factor\": \(low), "
                + "\"original_max_position_embeddings\": \(positions), \"rope_type\": \"llama3\"}"
        }
    }
}
