/// Rewrites a pattern for Oniguruma, which tokenizers are written for, so that ICU matches the same.
///
/// `\s`, `\w`, `\h`, `\v` and `\b` mean other characters there, `(?m)` is ICU's `(?s)`, and `^`, `$` and `.` know
/// only line feeds, which is set where the expression is made. What can't be rewritten is refused, never guessed.
///
/// Sources: Oniguruma's doc/RE (Ruby's syntax) and ICU's "Regular Expressions".
struct RegexTranslation {
    /// The pattern for ICU.
    private(set) var result = ""

    private let scalars: [Unicode.Scalar]
    private var index = 0
    private var bracketDepth = 0
    /// Whether a counted repetition like `{2,3}` ended just before, and whether it gives one number only.
    private var afterCount: (isExact: Bool, Void)?

    /// What `\w` is in Oniguruma: its table for Latin-1 has all numbers, the others only decimal digits.
    private static let wordCharacters = #"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u00B2\u00B3\u00B9\u00BC-\u00BE"#

    /// - Throws: `TokenizerError`, about `field`, if the pattern has something that ICU doesn't have or reads otherwise.
    init(_ pattern: String, field: JSONValue) throws(TokenizerError) {
        scalars = Array(pattern.unicodeScalars)
        while index < scalars.count {
            let count = afterCount
            afterCount = nil
            let scalar = scalars[index]
            switch scalar {
            case "\\": try translateEscape(field)
            case "[":
                if peek(1) == ":" { throw Self.refusal("[: :]", field) }
                bracketDepth += 1
                append(1)
                if peek(0) == "^" { append(1) }
                if peek(0) == "]" { throw Self.refusal("an empty []", field) }
            case "]":
                bracketDepth = max(0, bracketDepth - 1)
                append(1)
            case "-" where bracketDepth > 0 && peek(1) == "-": throw Self.refusal("-- between brackets", field)
            case "(" where bracketDepth == 0 && peek(1) == "?": try translateGroup(field)
            case "{" where bracketDepth == 0: translateCount()
            case "+" where count != nil: throw Self.refusal("+ after {}", field)
            case "?" where count?.isExact == true: throw Self.refusal("? after {}", field)
            default: append(1)
            }
        }
    }

    private func peek(_ distance: Int) -> Unicode.Scalar? {
        index + distance < scalars.count ? scalars[index + distance] : nil
    }

    private mutating func append(_ count: Int) {
        for _ in 0..<count where index < scalars.count {
            result.unicodeScalars.append(scalars[index])
            index += 1
        }
    }

    private mutating func replace(_ count: Int, with text: String) {
        result += text
        index += count
    }

    private static func refusal(_ what: String, _ field: JSONValue) -> TokenizerError {
        field.fault("a pattern with \(what) is not supported; rewrite the pattern without it", .unsupported)
    }

    private mutating func translateEscape(_ field: JSONValue) throws(TokenizerError) {
        guard let letter = peek(1) else { throw field.fault("the pattern ends in a backslash") }
        let isSet = bracketDepth > 0
        switch letter {
        case "s": replace(2, with: #"\p{White_Space}"#)
        case "S": replace(2, with: #"\P{White_Space}"#)
        case "w": replace(2, with: "[\(Self.wordCharacters)]")
        case "W": replace(2, with: "[^\(Self.wordCharacters)]")
        case "h": replace(2, with: "[0-9a-fA-F]")
        case "H": replace(2, with: "[^0-9a-fA-F]")
        case "v": replace(2, with: #"\x0B"#)
        case "b" where !isSet:
            let word = "[\(Self.wordCharacters)]"
            replace(2, with: "(?:(?<=\(word))(?!\(word))|(?<!\(word))(?=\(word)))")
        case "d", "D", "n", "r", "t", "f", "a", "e", "x", "u": append(2)
        case "A", "z", "Z", "1", "2", "3", "4", "5", "6", "7", "8", "9":
            if isSet { throw Self.refusal("\\\(letter) between brackets", field) }
            append(2)
        case "p", "P": try translateProperty(field)
        default:
            // Letters and digits that neither engine, or only one, knows; everything else stands for itself.
            guard !letter.isASCII || !(letter.properties.isAlphabetic || letter.properties.numericType != nil) else {
                throw Self.refusal("\\\(letter)", field)
            }
            append(2)
        }
    }

    /// `\p{Name}`, `\P{Name}` and `\p{^Name}`.
    private mutating func translateProperty(_ field: JSONValue) throws(TokenizerError) {
        guard peek(2) == "{", let end = scalars[index...].firstIndex(of: "}") else {
            throw Self.refusal("\\\(scalars[index + 1]) without {}", field)
        }
        var name = String(String.UnicodeScalarView(scalars[(index + 3)..<end]))
        var isNegative = scalars[index + 1] == "P"
        if name.hasPrefix("^") {
            name.removeFirst()
            isNegative.toggle()
        }
        // POSIX names stand for other sets in ICU.
        let posix: Set = [
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper",
            "word", "xdigit",
        ]
        guard !posix.contains(name.lowercased()), name.unicodeScalars.allSatisfy({ $0.isASCII && $0 != "{" }) else {
            throw Self.refusal("\\p{\(name)}", field)
        }
        replace(end + 1 - index, with: isNegative ? "\\P{\(name)}" : "\\p{\(name)}")
    }

    /// What begins with `(?`: flags are read one by one, lookaround and other groups are the same in both.
    private mutating func translateGroup(_ field: JSONValue) throws(TokenizerError) {
        let isFirst = index == 0
        append(2)
        switch peek(0) {
        case ":", "=", "!", ">": append(1)
        case "<":
            guard peek(1) == "=" || peek(1) == "!" else { throw Self.refusal("named groups", field) }
            append(2)
        default:
            while let flag = peek(0), flag != ":", flag != ")" {
                switch flag {
                case "i", "-": append(1)
                case "m": replace(1, with: "s")
                default: throw Self.refusal("(?\(flag)", field)
                }
            }
            // Flags without a colon also take in the alternatives that follow, in Oniguruma alone.
            if peek(0) == ")", !isFirst { throw Self.refusal("flags in the middle", field) }
        }
    }

    private mutating func translateCount() {
        guard let end = scalars[index...].firstIndex(of: "}") else { return append(1) }
        let inside = scalars[(index + 1)..<end]
        guard !inside.isEmpty, inside.allSatisfy({ ("0"..."9").contains($0) || $0 == "," }) else { return append(1) }
        append(end + 1 - index)
        afterCount = (!inside.contains(","), ())
    }
}
