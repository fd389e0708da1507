import Foundation

/// What is printed and written at the end.
struct Report {
    let machine: Machine
    let versions: [String: String]
    let rounds: Int
    let figures: Figures
    /// Bytes of the whole model that was measured.
    let modelByteCount: Int?
    /// What was left out, and why.
    let missing: [String]

    var ratios: [Ratio] { Goals(figures: figures).ratios + modelFigures.ratios }

    private var modelFigures: ModelFigures { ModelFigures(figures: figures, modelByteCount: modelByteCount) }

    var text: String {
        let sections = [
            heading, FigureTables(figures: figures).text, modelFigures.text, RatioTables(ratios: ratios).text,
            HonestReading(figures: figures).text, missingText,
        ]
        return sections.filter { !$0.isEmpty }.joined(separator: "\n\n")
    }

    func writeJSON(to path: String) throws {
        let measured = ratios.compactMap { ratio in ratio.value.map { (ratio, $0) } }
        let content = Content(
            machine: machine,
            versions: versions,
            rounds: rounds,
            figures: figures.all,
            ratios: Dictionary(uniqueKeysWithValues: measured.map { ($0.name, Content.Entry($0, value: $1)) }),
            missing: missing
        )
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try (encoder.encode(content) + Data("\n".utf8)).write(to: URL(filePath: path))
    }

    private struct Content: Encodable {
        let machine: Machine
        let versions: [String: String]
        let rounds: Int
        let figures: [Figure]
        let ratios: [String: Entry]
        let missing: [String]

        struct Entry: Encodable {
            let value: Double
            let asked: Double
            let direction: Ratio.Direction
            let isMet: Bool

            init(_ ratio: Ratio, value: Double) {
                self.value = value
                asked = ratio.asked
                direction = ratio.direction
                isMet = ratio.isMet ?? false
            }
        }
    }

    private var heading: String {
        let who = Contestant.allCases.compactMap { versions[$0.rawValue] }
        return ([machine.text, "medians of \(rounds) interleaved rounds"] + who).joined(separator: "\n")
    }

    private var missingText: String {
        missing.isEmpty ? "" : (["Left out:"] + missing.map { "- " + $0 }).joined(separator: "\n")
    }
}
