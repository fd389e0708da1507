internal import CachePacking
internal import KVCacheCodecs
internal import KVCacheModel
internal import ThinKPruning

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// Shares a cache's bits between keys and values.
struct BudgetSplit {
    /// Bits per number that are worth a try: fewer lose what a prompt says, more are float16's.
    static let range = BitBudget(millibits: 1500)...BitBudget(millibits: 5250)
    /// Budgets to search among, in eighths of a bit.
    static let steps = stride(from: range.lowerBound.millibits, through: range.upperBound.millibits, by: 125)
        .map { BitBudget(millibits: $0) }
    /// Budgets of them that a binary search tries at most.
    static let mostTrials = Int.bitWidth - steps.count.leadingZeroBitCount

    /// Numbers of a row, all layers and heads together.
    private let keys: Int
    private let values: Int
    /// What values take in each width, the same in all heads; nil where a profile shares out their bits.
    private let valueBudgets: [BitBudget]?
    /// How bits are shared out, for people.
    let reason: String

    init(_ cache: CacheOutline) {
        keys = cache.geometry.layers.reduce(0) { $0 + $1.kvHeads * $1.keyDimension }
        values = cache.geometry.layers.reduce(0) { $0 + $1.kvHeads * $1.valueDimension }
        if cache.profile?.contains(where: { $0.sensitivity != nil }) == true {
            valueBudgets = nil
            reason = "keys' widths by channel and values' by head, as the profile's sensitivities say"
        } else {
            valueBudgets = SoftThinKCodec.valueBudgets(
                dimension: cache.geometry.layers.map(\.valueDimension).max() ?? 0,
                blockLength: cache.blockLength
            )
            reason = "keys' widths by channel, values' the same everywhere, as no profile says which matter more"
        }
    }

    /// Soft pruning that takes so many bits per number.
    ///
    /// - Throws: `CodecError` if keys and values can't be stored in so few.
    func stage(_ budget: BitBudget) throws -> SoftThinKCodec {
        guard values > 0 else { return try SoftThinKCodec(budget: budget) }
        guard let values = valueBudget(budget), let keys = keyBudget(budget, values: values) else {
            let least = Self.steps.first { step in valueBudget(step).flatMap { keyBudget(step, values: $0) } != nil }
            throw CodecError(
                .unsupportedPlan,
                "auto can't store this cache in \(budget.text) bits per number: "
                    + (least.map { "the least is about bits=\($0.text)" } ?? "its values are too narrow; take f16")
            )
        }
        return try SoftThinKCodec(budget: keys, valueBudget: values)
    }

    /// What is left for keys; nil if it is too little.
    private func keyBudget(_ budget: BitBudget, values valueBudget: BitBudget) -> BitBudget? {
        guard keys > 0 else { return budget }
        let left = BitBudget(
            millibits: (budget.millibits * (keys + values) - valueBudget.millibits * values) / keys
        )
        return left < Self.range.lowerBound ? nil : min(left, BitBudget.range.upperBound)
    }

    private func valueBudget(_ budget: BitBudget) -> BitBudget? {
        guard let valueBudgets else {
            // Measured on a real model: at few bits keys need more, or what a prompt says is no longer found.
            let lead = min(max(3500 - budget.millibits, 0), 250)
            return BitBudget(millibits: budget.millibits - lead * keys / (keys + values))
        }
        // Each bit divides a squared error by four, of keys and of values.
        func loss(_ values: BitBudget) -> Double {
            keyBudget(budget, values: values).map { pow(4, -$0.bits) + pow(4, -values.bits) } ?? .infinity
        }
        let best = valueBudgets.filter(BitBudget.range.contains).min { loss($0) < loss($1) }
        return best.flatMap { loss($0) < .infinity ? $0 : nil }
    }
}
