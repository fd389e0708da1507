import Foundation
import TestSupport

/// The tables of a page in Formats that say of each field what is done with it, with examples to try.
enum FormatTable {
    struct Row {
        /// The page's heading before the table.
        let heading: String
        let field: String
        /// The families of models that it is of, or `all`.
        let families: String
        let decision: String
        /// Values in JSON, or empty.
        let example: String
        let refused: String
    }

    static func rows(of page: String) -> [Row] {
        let path = ProjectFiles.root.appending(path: "Formats/\(page)")
        let text = (try? String(contentsOf: path, encoding: .utf8)) ?? ""
        var heading = ""
        var rows: [Row] = []
        for line in text.split(separator: "\n") {
            if line.hasPrefix("## ") { heading = String(line.dropFirst(3)) }
            let cells = line.split(separator: "|", omittingEmptySubsequences: false)
                .map { $0.trimmingCharacters(in: .whitespaces) }
            guard cells.count == 8, cells[1].hasPrefix("`") else { continue }
            let values = [1, 4, 5].map { cells[$0].trimmingCharacters(in: ["`"]) }
            rows.append(
                Row(
                    heading: heading,
                    field: values[0],
                    families: cells[2],
                    decision: cells[3],
                    example: values[1],
                    refused: values[2]
                )
            )
        }
        return rows
    }
}
