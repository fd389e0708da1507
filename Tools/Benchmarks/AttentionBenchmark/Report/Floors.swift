import ArgumentParser
import Foundation

/// Limits that ratios must not go beyond: floors, and ceilings for those that are costs.
struct Floors {
    /// What a ratio may lose before it is called a regress, as written by `--write-floors`.
    private static let allowance = 0.85

    /// By the ratios' names.
    private let limits: [String: Double]

    /// Limits from ratios as measured.
    init(ratios: [Ratio]) {
        var limits: [String: Double] = [:]
        for ratio in ratios where ratio.unit == .times || ratio.isStrict {
            guard let value = ratio.value else { continue }
            if ratio.isStrict {
                limits[ratio.name] = ratio.asked
                continue
            }
            let limit = ratio.direction == .atLeast ? value * Self.allowance : value / Self.allowance
            // Three digits are as many as measuring gives.
            limits[ratio.name] = Double(String(format: "%.3g", limit))
        }
        self.limits = limits
    }

    init(path: String) throws {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw ValidationError("\(path): can't be read; --write-floors makes such a file")
        }
        do {
            limits = try JSONDecoder().decode([String: Double].self, from: data)
        } catch {
            throw ValidationError("\(path): is not a JSON object of ratios by name; --write-floors makes such a file")
        }
    }

    func write(to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try (encoder.encode(limits) + Data("\n".utf8)).write(to: URL(filePath: path))
    }

    func comparedCount(in ratios: [Ratio]) -> Int {
        ratios.filter { $0.value != nil && limits[$0.name] != nil }.count
    }

    /// A sentence for each ratio beyond its limit, and for each case that failed: what isn't measured isn't known to be
    /// as it was. Ratios that were not to be measured, or whose peer isn't there, say nothing.
    func misses(in ratios: [Ratio], failures: [String]) -> [String] {
        let beyond = ratios.compactMap { ratio -> String? in
            guard let value = ratio.value, let limit = limits[ratio.name] else { return nil }
            switch ratio.direction {
            case .atLeast where value < limit:
                return "below its floor: \(ratio.name) is \(value.short), floor \(limit)"
            case .atMost where value > limit:
                return "above its ceiling: \(ratio.name) is \(value.short), ceiling \(limit)"
            default: return nil
            }
        }
        let nothing = comparedCount(in: ratios) == 0 ? ["no ratio that was measured has a floor"] : []
        return beyond + failures.map { "failed: \($0)" } + nothing
    }
}
