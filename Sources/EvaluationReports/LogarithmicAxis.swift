internal import Foundation

/// A logarithmic scale around some positive numbers, and where to mark it.
struct LogarithmicAxis {
    /// Multiples of the base's powers that are marked, from sparse to dense.
    enum Base: Sendable {
        case two, ten

        fileprivate var value: Double { self == .two ? 2 : 10 }

        fileprivate var multiples: [[Double]] {
            switch self {
            case .two: [[1], [1, 1.5], [1, 1.25, 1.5, 1.75]]
            case .ten: [[1], [1, 3], [1, 2, 5], [1, 2, 3, 5, 7], [1, 1.5, 2, 3, 4, 5, 6, 8]]
            }
        }
    }

    /// Fewer marks than this are made more by marking more multiples, where there are any.
    private static let fewestTicks = 4
    /// More marks than this are made fewer by passing over powers.
    private static let mostTicks = 12

    private let base: Base
    /// Logarithms to the base.
    private let range: ClosedRange<Double>

    /// - Parameter values: what has to fit; numbers that have no logarithm are passed over.
    init(_ values: [Double], base: Base = .ten) {
        let logarithms = values.filter { $0 > 0 && $0.isFinite }.map { log($0) / log(base.value) }
        let (low, high) = (logarithms.min() ?? -1, logarithms.max() ?? 1)
        let margin = max(0.08 * (high - low), 0.12)
        self.base = base
        range = (low - margin)...(high + margin)
    }

    private init(base: Base, range: ClosedRange<Double>) {
        self.base = base
        self.range = range
    }

    /// The scale of `number / value`, which runs the other way.
    func inverse(of number: Double) -> LogarithmicAxis {
        let shift = log(number) / log(base.value)
        return LogarithmicAxis(base: base, range: (shift - range.upperBound)...(shift - range.lowerBound))
    }

    /// Where a positive number lies, 0 at the beginning of the scale and 1 at its end.
    func share(of value: Double) -> Double {
        (log(value) / log(base.value) - range.lowerBound) / (range.upperBound - range.lowerBound)
    }

    /// Numbers to mark, ascending.
    var ticks: [Double] {
        let powers = Int(range.lowerBound.rounded(.down))...Int(range.upperBound.rounded(.up))
        var ticks: [Double] = []
        for multiples in base.multiples {
            ticks = powers.flatMap { power in multiples.map { $0 * pow(base.value, Double(power)) } }
                .filter { $0 > 0 && $0.isFinite && (0...1).contains(share(of: $0)) }
            if ticks.count >= Self.fewestTicks { break }
        }
        let stride = (ticks.count + Self.mostTicks - 1) / Self.mostTicks
        return ticks.enumerated().filter { $0.offset % max(stride, 1) == 0 }.map(\.element)
    }
}
