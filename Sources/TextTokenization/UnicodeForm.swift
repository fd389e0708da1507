internal import Foundation

/// The Unicode normalization forms, by the names that files use.
///
/// Foundation's `precomposedStringWithCanonicalMapping` and its kin sort marks by tables of their own and leave some
/// Hangul apart; ICU's transforms, which Foundation offers too, follow the standard.
///
/// Source: Unicode Standard Annex #15.
enum UnicodeForm: String, Sendable {
    case nfc = "NFC"
    case nfd = "NFD"
    case nfkc = "NFKC"
    case nfkd = "NFKD"

    /// The Unicode version of the tables that the Python package normalizes with.
    private static let tableVersion: Unicode.Version = (9, 0)
    /// How many marks in a row are sorted here: ICU takes quadratic time for it. Words have up to 5.
    private static let longRun = 32

    /// The text in this form.
    ///
    /// Characters that are newer than the original's tables stay as they are, and nothing combines across them, as if
    /// they were unassigned.
    func apply(to text: [UInt8]) throws(TokenizerError) -> [UInt8] {
        var result: [UInt8] = []
        var rest: [UInt8] = []
        var marks: [Unicode.Scalar] = []
        var index = 0
        while index < text.count {
            let (scalar, end) = scalar(at: index, of: text[...])
            // Before U+0300 there are no marks, and nothing is new.
            let mayMatter = scalar.value >= 0x300
            let isNew = mayMatter && scalar.properties.age.map { $0 > Self.tableVersion } ?? false
            if mayMatter, !isNew, scalar.properties.canonicalCombiningClass != .notReordered {
                marks.append(scalar)
            } else {
                Self.appendOrdered(&marks, to: &rest)
                if isNew {
                    result += try normalized(rest)
                    result += text[index..<end]
                    rest.removeAll(keepingCapacity: true)
                } else {
                    rest += text[index..<end]
                }
            }
            index = end
        }
        Self.appendOrdered(&marks, to: &rest)
        return result + (try normalized(rest))
    }

    private func normalized(_ text: [UInt8]) throws(TokenizerError) -> String.UTF8View {
        let string = String(decoding: text, as: UTF8.self)
        guard let result = string.applyingTransform(StringTransform("Any-\(rawValue)"), reverse: false) else {
            throw TokenizerError(.unsupported, field: "normalizer", "this system has no \(rawValue); use another one")
        }
        return result.utf8
    }

    /// Appends marks and empties their list. Many of them get in canonical order first, which changes no normal form.
    private static func appendOrdered(_ marks: inout [Unicode.Scalar], to text: inout [UInt8]) {
        if marks.count > longRun {
            // A few marks stand for two.
            let single = marks.flatMap { Array(String($0).decomposedStringWithCanonicalMapping.unicodeScalars) }
            marks = single.enumerated().sorted {
                let left = $0.element.properties.canonicalCombiningClass.rawValue
                let right = $1.element.properties.canonicalCombiningClass.rawValue
                return (left, $0.offset) < (right, $1.offset)
            }.map(\.element)
        }
        for mark in marks { text += UTF8.encode(mark) ?? .init() }
        marks.removeAll(keepingCapacity: true)
    }
}
