internal import Foundation

/// Rotary position embedding: how far each pair of channels, c and c + headDimension / 2, is turned per position.
///
/// Source: arXiv 2104.09864, and for positions beyond those of training `Scaling`.
public struct RotaryEmbedding: Sendable, Equatable {
    /// `rope_theta`.
    public let base: Double
    public let headDimension: Int
    public let scaling: Scaling

    /// - Parameter standardBase: the base where the parameters have none.
    init(
        _ parameters: RotaryParameters,
        headDimension: Int,
        standardBase: Double = 10000,
        path: String
    ) throws(ModelError) {
        self.headDimension = headDimension
        base = parameters.base ?? standardBase
        guard base >= 1 else {
            throw ModelError(.damaged, path: path, "\(parameters.baseField) is \(base), must be 1 or more")
        }
        scaling = try Scaling(parameters, path: path)
        if let fault = scaling.fault(headDimension: headDimension, base: base) {
            throw ModelError(.damaged, path: path, "\(parameters.field): \(fault)")
        }
        // The product of parameters that are fine each can be too large.
        guard attentionFactor.isFinite, attentionFactor > 0 else {
            throw ModelError(
                .damaged,
                path: path,
                "\(parameters.field): the attention factor by these parameters is beyond float32; take the model's own file"
            )
        }
        let longest = ModelConfiguration.largestSize
        for frequencies in [frequencies(tokenCount: 1), frequencies(tokenCount: longest)] {
            guard frequencies.allSatisfy(\.isFinite) else {
                throw ModelError(
                    .damaged,
                    path: path,
                    "\(parameters.field): frequencies by these parameters are beyond float32; take the model's own file"
                )
            }
        }
    }

    /// Up to how many tokens a text has the same frequencies whatever its length; nil where all texts have the same.
    ///
    /// Keys of a longer text are turned by its length, so that they are not those of a shorter one that begins alike.
    public var lengthIndependentTokens: Int? {
        switch scaling {
        case .dynamic(_, let positions): positions
        case .longrope(let longrope): longrope.originalPositions
        case .none, .linear, .llama3, .yarn, .divided: nil
        }
    }

    /// Tokens that a text may have, by the scaling, where a model is made for so many without it.
    func maximumPositions(_ positions: Int) -> Int {
        let scaled =
            switch scaling {
            case .dynamic(let factor, let original): factor * Double(original)
            case .yarn(let yarn): yarn.factor * Double(yarn.originalPositions)
            case .none, .linear, .llama3, .longrope, .divided: 0.0
            }
        return max(positions, Int(min(scaled, Double(ModelConfiguration.largestSize))))
    }

    /// Radians per position for each pair of channels, in a text of so many tokens.
    ///
    /// In float32 as the models were trained with: the products of large positions depend on it.
    public func frequencies(tokenCount: Int) -> [Float] {
        let plain = plainFrequencies(base: base)
        switch scaling {
        case .none:
            return plain
        case .linear(let factor):
            return plain.map { $0 / Float(factor) }
        case .llama3(let factor, let low, let high, let positions):
            return plain.map { plain in
                let wavelength = 2 * Float.pi / plain
                if wavelength > Float(Double(positions) / low) { return plain / Float(factor) }
                if wavelength < Float(Double(positions) / high) { return plain }
                let smooth = (Float(positions) / wavelength - Float(low)) / Float(high - low)
                return (1 - smooth) * plain / Float(factor) + smooth * plain
            }
        case .dynamic(let factor, let positions):
            guard tokenCount > positions else { return plain }
            let stretch = Float(factor) * Float(tokenCount) / Float(positions) - Float(factor - 1)
            let exponent = Double(headDimension) / Double(headDimension - 2)
            return plainFrequencies(base: Double(Float(base) * Float(pow(Double(stretch), exponent))))
        case .yarn(let yarn):
            return yarn.frequencies(base: base, headDimension: headDimension)
        case .longrope(let longrope):
            let factors = tokenCount > longrope.originalPositions ? longrope.longFactors : longrope.shortFactors
            return zip(powers(of: base), factors).map { 1 / (Float($1) * $0) }
        case .divided(let factors):
            return zip(plain, factors).map { $0 / Float($1) }
        }
    }

    private func plainFrequencies(base: Double) -> [Float] { powers(of: base).map { 1 / $0 } }

    private func powers(of base: Double) -> [Float] { Self.powers(of: base, headDimension: headDimension) }

    /// The base to the power of each pair's share of the channels.
    static func powers(of base: Double, headDimension: Int) -> [Float] {
        stride(from: 0, to: headDimension, by: 2).map { channel in
            Float(pow(base, Double(Float(channel) / Float(headDimension))))
        }
    }
}
