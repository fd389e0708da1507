internal import CachePacking

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

extension HeadPlan {
    /// Whether the codes' own error is ten times what `fast` attention adds to it.
    ///
    /// The squared error of numbers of b bits is to their square as 1 to `(2^b - 1)^2`, the squared number of their codes'
    /// steps, times the same factor at any width; the output has the error of keys and of values. Key channels, and
    /// components, have widths with which their errors count about alike, so that those of more bits are what a score
    /// mostly consists of.
    /// Values of 2 bits suffice, or 3 bits of keys and of values, or soft-pruned keys of 2.5 bits and values of 3 or 4:
    /// `RealCacheTests` measures it.
    func isCoarse(keyDimension: Int) -> Bool {
        func squaredSteps(_ coding: Coding) -> Double {
            coding.isFullPrecision ? .infinity : pow(exp2(Double(coding.width)) - 1, 2)
        }
        func squaredSteps(_ plan: ComponentPlan) -> Double {
            plan.runs.reduce(0) { $0 + Double($1.count) * squaredSteps($1.coding) } / Double(plan.channelCount)
        }
        if let components {
            return 1 / squaredSteps(components.keys) + (components.values.map { 1 / squaredSteps($0) } ?? 0) >= 1 / 40
        }
        let ofKeys = keyRuns.reduce(0) { $0 + Double($1.channels.count) * squaredSteps($1.coding) }
        return Double(keyDimension) / ofKeys + 1 / squaredSteps(values) >= 1 / 40
    }
}
