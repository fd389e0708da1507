internal import JSONText

/// What becomes of the matches when a text is split at them.
enum SplitBehavior: String, Sendable, CaseIterable {
    case removed = "Removed"
    case isolated = "Isolated"
    case mergedWithPrevious = "MergedWithPrevious"
    case mergedWithNext = "MergedWithNext"
    case contiguous = "Contiguous"

    /// - Throws: `TokenizerError` if the name is none of these.
    init(_ value: JSONValue) throws(JSONError) {
        guard let behavior = Self(rawValue: try value.text()) else {
            throw value.fault(
                "must be one of \(Self.allCases.map(\.rawValue).joined(separator: ", "))",
                .unsupported
            )
        }
        self = behavior
    }

    private struct Part {
        var place: Range<Int>
        let isMatch: Bool
    }

    /// The parts of `text` that remain; some may be empty.
    ///
    /// - Parameter inverted: whether what lies between the matches counts as match, and the matches don't.
    func split(_ text: Range<Int>, at matches: [Range<Int>], inverted: Bool = false) -> [Range<Int>] {
        var parts: [Part] = []
        var end = text.lowerBound
        for match in matches {
            if end != match.lowerBound { parts.append(Part(place: end..<match.lowerBound, isMatch: inverted)) }
            parts.append(Part(place: match, isMatch: !inverted))
            end = match.upperBound
        }
        if end != text.upperBound { parts.append(Part(place: end..<text.upperBound, isMatch: inverted)) }
        switch self {
        case .removed: return parts.filter { !$0.isMatch }.map(\.place)
        case .isolated: return parts.map(\.place)
        case .contiguous: return Self.merge(parts) { part, formerIsMatch in part.isMatch == formerIsMatch }
        case .mergedWithPrevious:
            return Self.merge(parts) { part, formerIsMatch in part.isMatch && !formerIsMatch }
        case .mergedWithNext:
            return Self.merge(parts.reversed()) { part, formerIsMatch in part.isMatch && !formerIsMatch }.reversed()
        }
    }

    /// Joins each part to the one before it if `joins` says so.
    private static func merge(_ parts: [Part], joins: (Part, _ formerIsMatch: Bool) -> Bool) -> [Range<Int>] {
        var result: [Range<Int>] = []
        var formerIsMatch = false
        for part in parts {
            if joins(part, formerIsMatch), let last = result.popLast() {
                result.append(
                    min(last.lowerBound, part.place.lowerBound)..<max(last.upperBound, part.place.upperBound)
                )
            } else {
                result.append(part.place)
            }
            formerIsMatch = part.isMatch
        }
        return result
    }
}
