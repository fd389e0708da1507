import Foundation

/// A table for people, which is also one in Markdown: left-aligned first column, right-aligned others.
struct MarkdownTable {
    private var rows: [[String]]

    init(header: [String]) { rows = [header] }

    mutating func add(_ row: [String]) { rows.append(row) }

    var isEmpty: Bool { rows.count == 1 }

    var text: String {
        let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        var lines = rows.map { row in
            line(
                row.indices.map { column in
                    let space = String(repeating: " ", count: widths[column] - row[column].count)
                    return column == 0 ? row[column] + space : space + row[column]
                }
            )
        }
        let rule = widths.indices.map { column in
            String(repeating: "-", count: max(widths[column] - 1, 1)) + (column == 0 ? "-" : ":")
        }
        lines.insert(line(rule), at: 1)
        return lines.joined(separator: "\n")
    }

    private func line(_ cells: [String]) -> String { "| " + cells.joined(separator: " | ") + " |" }
}

extension Double {
    /// The number with so many digits after the point.
    func fixed(_ digits: Int) -> String { String(format: "%.\(digits)f", self) }

    /// The number with three digits that count, or all before the point.
    var short: String { fixed(self < 10 ? 2 : self < 100 ? 1 : 0) }
}

extension Int {
    /// The number with its thousands apart.
    var grouped: String {
        let digits = String(self)
        let parts = stride(from: digits.count, to: 0, by: -3).map { end in
            digits.dropFirst(Swift.max(end - 3, 0)).prefix(Swift.min(3, end))
        }
        return parts.reversed().joined(separator: ",")
    }
}
