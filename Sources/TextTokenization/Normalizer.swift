internal import JSONText

/// A step that changes a text before it is split.
enum Normalizer: Sendable {
    case unicode(UnicodeForm)
    case lowercase
    case prepend([UInt8])
    case replace(TextPattern, [UInt8])
    case strip(left: Bool, right: Bool)

    /// - Throws: `TokenizerError` if the step isn't supported or has wrong fields.
    init(_ value: JSONValue) throws(JSONError) {
        let type = try Component.type(of: value)
        switch type {
        case "Lowercase": self = .lowercase
        case "Prepend": self = .prepend(try value.required("prepend").bytes())
        case "Replace":
            self = .replace(try TextPattern(try value.required("pattern")), try value.required("content").bytes())
        case "Strip":
            self = .strip(
                left: try value.required("strip_left").bool(),
                right: try value.required("strip_right").bool()
            )
        default:
            guard let form = UnicodeForm(rawValue: type) else {
                throw try Component.refusal(
                    value,
                    supported: "NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip or Sequence"
                )
            }
            self = .unicode(form)
        }
    }

    /// The text after this step.
    func apply(to text: [UInt8], budget: WorkBudget) throws(TokenizerError) -> [UInt8] {
        switch self {
        case .unicode(let form):
            if text.allSatisfy({ $0 < 0x80 }) { return text }
            return try form.apply(to: text)
        case .lowercase:
            var result: [UInt8] = []
            // By character, without the Greek rule for the end of a word: so does the original.
            forEachScalar(of: text[...]) { scalar, _ in result += scalar.properties.lowercaseMapping.utf8 }
            return result
        case .prepend(let prefix):
            try budget.check(byteCount: text.count + prefix.count)
            return text.isEmpty ? text : prefix + text
        case .replace(let pattern, let content):
            let places = try pattern.matches(in: text[...], budget: budget)
            try budget.check(byteCount: text.count + places.count * content.count)
            return Self.replace(places, of: text, with: content)
        case .strip(let left, let right):
            var rest = text[...]
            if left { rest = rest.dropFirst(Self.leadingSpaces(of: rest)) }
            if right { rest = rest.dropLast(Self.trailingSpaces(of: rest)) }
            return Array(rest)
        }
    }

    static func replace(_ places: [Range<Int>], of text: [UInt8], with content: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        var end = 0
        for place in places {
            result += text[end..<place.lowerBound]
            result += content
            end = place.upperBound
        }
        return result + text[end...]
    }

    /// The number of bytes of the white space that a text begins with.
    static func leadingSpaces(of text: ArraySlice<UInt8>) -> Int {
        var index = text.startIndex
        while index < text.endIndex {
            let (next, end) = scalar(at: index, of: text)
            guard next.properties.isWhitespace else { break }
            index = end
        }
        return index - text.startIndex
    }

    /// The number of bytes of the white space that a text ends with.
    static func trailingSpaces(of text: ArraySlice<UInt8>) -> Int {
        var end = text.endIndex
        while let last = lastScalar(of: text[..<end]), last.scalar.properties.isWhitespace { end = last.start }
        return text.endIndex - end
    }

    /// The last scalar of valid UTF-8, and where it begins; nil if the text is empty.
    static func lastScalar(of text: ArraySlice<UInt8>) -> (scalar: Unicode.Scalar, start: Int)? {
        guard !text.isEmpty else { return nil }
        var start = text.endIndex - 1
        while start > text.startIndex, text[start] & 0xC0 == 0x80 { start -= 1 }
        return (scalar(at: start, of: text).0, start)
    }
}
