internal import JSONText

/// What a text is searched for: `{"String": ...}` or `{"Regex": ...}`.
enum TextPattern: Sendable {
    case literal([UInt8])
    case regex(RegularExpression)

    /// - Throws: `TokenizerError` if the value is neither, or the pattern can't be used.
    init(_ value: JSONValue) throws(JSONError) {
        if let literal = try value.member("String") {
            let bytes = try literal.bytes()
            guard !bytes.isEmpty else {
                throw literal.fault("an empty pattern is not supported; remove it", .unsupported)
            }
            self = .literal(bytes)
        } else if let regex = try value.member("Regex") {
            self = .regex(try RegularExpression(regex))
        } else {
            throw value.fault("must have \"String\" or \"Regex\"")
        }
    }

    /// The places of all matches, in order and without overlaps.
    func matches(in text: ArraySlice<UInt8>, budget: WorkBudget) throws(TokenizerError) -> [Range<Int>] {
        // Nothing matches in an empty text, not even an empty pattern: so does the original.
        guard !text.isEmpty else { return [] }
        return switch self {
        case .literal(let literal): Self.places(of: literal, in: text)
        case .regex(let regex): try regex.matches(in: text, budget: budget)
        }
    }

    /// The places of a text, from left to right.
    static func places(of literal: [UInt8], in text: ArraySlice<UInt8>) -> [Range<Int>] {
        guard text.count >= literal.count else { return [] }
        // The table of Knuth, Morris and Pratt: nothing in a file makes the search quadratic.
        var borders = [0]
        var length = 0
        for index in literal.indices.dropFirst() {
            while length > 0, literal[index] != literal[length] { length = borders[length - 1] }
            if literal[index] == literal[length] { length += 1 }
            borders.append(length)
        }
        var places: [Range<Int>] = []
        var matched = 0
        for index in text.indices {
            while matched > 0, text[index] != literal[matched] { matched = borders[matched - 1] }
            if text[index] == literal[matched] { matched += 1 }
            if matched == literal.count {
                places.append(index + 1 - matched..<index + 1)
                matched = 0
            }
        }
        return places
    }
}

/// Calls `body` with each scalar of valid UTF-8 and its place.
func forEachScalar(of text: ArraySlice<UInt8>, _ body: (Unicode.Scalar, Range<Int>) -> Void) {
    var index = text.startIndex
    while index < text.endIndex {
        let (scalar, end) = scalar(at: index, of: text)
        body(scalar, index..<end)
        index = end
    }
}

/// The scalar that begins at `index` of valid UTF-8, and where it ends.
func scalar(at index: Int, of text: ArraySlice<UInt8>) -> (Unicode.Scalar, end: Int) {
    let first = text[index]
    if first < 0x80 { return (Unicode.Scalar(first), index + 1) }
    let count = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4
    var value = UInt32(first) & (0x7F >> UInt32(count))
    let end = min(index + count, text.endIndex)
    for place in index + 1..<end { value = value << 6 | UInt32(text[place] & 0x3F) }
    return (Unicode.Scalar(value) ?? "\u{FFFD}", end)
}
