internal import Foundation

/// The Unicode normalization forms, by the names that files use.
///
/// Foundation's `precomposedStringWithCanonicalMapping` and its kin sort marks by tables of their own and leave some
/// Hangul apart; ICU's transforms, which Foundation offers too, follow the standard.
///
/// Source: Unicode Standard Annex #15.
enum UnicodeForm: String, Sendable, CaseIterable {
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
        var rest = String.UnicodeScalarView()
        var marks: [Unicode.Scalar] = []
        for scalar in String(decoding: text, as: UTF8.self).unicodeScalars {
            let isNew = scalar.value >= 0x300 && scalar.properties.age.map { $0 > Self.tableVersion } ?? false
            if scalar.value >= 0x300, !isNew, scalar.properties.canonicalCombiningClass != .notReordered {
                marks.append(scalar)
                continue
            }
            rest.append(contentsOf: Self.ordered(marks))
            marks.removeAll(keepingCapacity: true)
            guard isNew else {
                rest.append(scalar)
                continue
            }
            result += try normalized(rest)
            result += String(scalar).utf8
            rest = .init()
        }
        rest.append(contentsOf: Self.ordered(marks))
        return result + (try normalized(rest))
    }

    private func normalized(_ text: String.UnicodeScalarView) throws(TokenizerError) -> String.UTF8View {
        guard let result = String(text).applyingTransform(StringTransform("Any-\(rawValue)"), reverse: false) else {
            throw TokenizerError(.unsupported, field: "normalizer", "this system has no \(rawValue); use another one")
        }
        return result.utf8
    }

    /// Marks in canonical order if they are many, which changes no normal form.
    private static func ordered(_ marks: [Unicode.Scalar]) -> [Unicode.Scalar] {
        guard marks.count > longRun else { return marks }
        // A few marks stand for two.
        let single = marks.flatMap { Array(String($0).decomposedStringWithCanonicalMapping.unicodeScalars) }
        return single.enumerated().sorted {
            let left = $0.element.properties.canonicalCombiningClass.rawValue
            let right = $1.element.properties.canonicalCombiningClass.rawValue
            return (left, $0.offset) < (right, $1.offset)
        }.map(\.element)
    }
}
