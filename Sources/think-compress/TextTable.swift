internal import Foundation

/// A table for people: left-aligned first column, right-aligned others.
struct TextTable {
    /// What stands in the place of a number that there is none of.
    static let missing = "-"
    private static let gap = "  "

    private var rows: [[String]]

    init(header: [String]) {
        rows = [header]
    }

    mutating func add(_ row: [String]) { rows.append(row) }

    /// The table in one piece.
    var text: String { text(of: rows, widths: widths) }

    /// The table cut into several that fit a screen, without the rows that have no number in them.
    ///
    /// - Parameters:
    ///   - width: characters of a line, which only a single column may exceed.
    ///   - leading: columns that begin each of the tables.
    func texts(width: Int = 100, leading: Int = 1) -> [String] {
        let widths = widths
        let start = widths[..<leading].reduce(0) { $0 + $1 + Self.gap.count }
        var pieces: [[Int]] = []
        var end = width
        for column in leading..<widths.count {
            if end + widths[column] > width {
                pieces.append([])
                end = start
            }
            pieces[pieces.count - 1].append(column)
            end += widths[column] + Self.gap.count
        }
        return pieces.map { columns in
            let kept = rows.filter { row in columns.contains { row[$0] != Self.missing } }
            let all = Array(0..<leading) + columns
            return text(of: kept.map { row in all.map { row[$0] } }, widths: all.map { widths[$0] })
        }
    }

    private var widths: [Int] { rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 } }

    private func text(of rows: [[String]], widths: [Int]) -> String {
        rows.map { row in
            row.indices.map { column in
                let space = String(repeating: " ", count: widths[column] - row[column].count)
                return column == 0 ? row[column] + space : space + row[column]
            }.joined(separator: Self.gap)
        }.joined(separator: "\n")
    }
}

extension Int {
    /// The number with its thousands apart.
    var grouped: String {
        let digits = String(magnitude)
        let parts = stride(from: digits.count, to: 0, by: -3).map { end in
            digits.dropFirst(Swift.max(end - 3, 0)).prefix(Swift.min(3, end))
        }
        return (self < 0 ? "-" : "") + parts.reversed().joined(separator: ",")
    }
}

extension FloatingPoint where Self: CVarArg {
    /// The number with so many digits after the point.
    func fixed(_ digits: Int) -> String { String(format: "%.\(digits)f", self) }
}
