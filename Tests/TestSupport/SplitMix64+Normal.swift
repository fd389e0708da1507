package import ThinkCompress

extension SplitMix64 {
    /// A number of roughly normal distribution, mean 0 and variance 1.
    package mutating func normal() -> Float {
        (0..<12).reduce(-6) { sum, _ in sum + Float.random(in: 0..<1, using: &self) }
    }
}
