/// What stages look at beside keys, values and queries, and only those who have the model can give; it takes time, so it is
/// computed for recipes that ask for it.
public struct ModelStatistics: OptionSet, Sendable {
    public let rawValue: Int

    public init(rawValue: Int) {
        self.rawValue = rawValue
    }

    /// The attention that tokens got from all queries of the prompt: `KVCacheLayer.accumulatedAttention`.
    public static let accumulatedAttention = ModelStatistics(rawValue: 1)
    /// How much the model's output projection weighs each value channel: `KVCacheLayer.outputWeights`.
    public static let outputWeights = ModelStatistics(rawValue: 2)
}
