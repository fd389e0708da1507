/// Rewrites a pattern for Oniguruma, which tokenizers are written for, so that ICU matches the same.
///
/// `\s`, `\w`, `\h`, `\v` and `\b` mean other characters there, `(?m)` is ICU's `(?s)`, and `^`, `$` and `.` know
/// only line feeds, which is set where the expression is made. What can't be rewritten is refused, never guessed. Two
/// differences remain: properties like `\p{L}` are those of the Unicode version of the platform's ICU, and where case
/// is ignored, a set like `[ß]` never matches two characters (`ss`).
///
/// Why not the system's Oniguruma: what Debian 12 has (6.9.8) knows Unicode 14, and 9,272 letters fewer than the copy
/// of the Python package (tokenizers 0.23.3), so that 7 of the fixtures' tokenizers split texts otherwise; the ICU of
/// Swift 6.3 has the same sets as the package. And a search of it can't be stopped: its limits count retries, of which
/// `(?:(?>a*)b|a)*` has one for each character while it looks at all the others, 16 s for 80,000 of them.
///
/// Sources: Oniguruma's doc/RE (Ruby's syntax) and ICU's "Regular Expressions".
struct RegexTranslation {
    /// How many characters a pattern may have; those in use have some 300.
    static let maximumLength = 2_000
    /// How many it may have for ICU, which takes kilobytes for each set: `\b` alone becomes four sets.
    static let maximumTranslatedLength = 20_000

    /// What stands before a place of the pattern, as far as repetitions care.
    private enum Former {
        /// A character or set, which begins at a place of the result.
        case atom(start: Int)
        /// A count like `{2}` or `{2,3}`.
        case count(isExact: Bool)
        case other
    }

    private let scalars: [Unicode.Scalar]
    private var index = 0
    private var result: [Unicode.Scalar] = []
    private var former = Former.other
    /// How many brackets are open, and where in the result the first of them is.
    private var bracketDepth = 0
    private var bracketStart = 0

    /// What `\w` is in Oniguruma between brackets, and elsewhere, where a table for Latin-1 has more numbers.
    private static let wordsInSets = #"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}"#
    private static let words = wordsInSets + #"\u00B2\u00B3\u00B9\u00BC-\u00BE"#

    /// The pattern for ICU.
    var pattern: String {
        var view = String.UnicodeScalarView()
        view.append(contentsOf: result)
        return String(view)
    }

    /// - Throws: `TokenizerError` if the pattern has something that ICU doesn't have or reads otherwise.
    init(_ pattern: String) throws(TokenizerError) {
        scalars = Array(pattern.unicodeScalars)
        guard scalars.count <= Self.maximumLength else { throw Self.lengthRefusal() }
        while index < scalars.count {
            if bracketDepth > 0 { try translateInBrackets() } else { try translate() }
        }
        guard result.count <= Self.maximumTranslatedLength else { throw Self.lengthRefusal() }
    }

    private func peek(_ distance: Int) -> Unicode.Scalar? {
        index + distance < scalars.count ? scalars[index + distance] : nil
    }

    private mutating func append(_ count: Int) {
        let end = min(index + count, scalars.count)
        result += scalars[index..<end]
        index = end
    }

    private mutating func replace(_ count: Int, with text: String) {
        result += text.unicodeScalars
        index += count
    }

    private static func refusal(_ what: String) -> TokenizerError {
        TokenizerError(.unsupported, "a pattern with \(what) is not supported; rewrite the pattern without it")
    }

    private static func lengthRefusal() -> TokenizerError {
        TokenizerError(.unsupported, "the pattern is too long; shorten it")
    }

    private mutating func translate() throws(TokenizerError) {
        let start = result.count
        switch scalars[index] {
        case "\\":
            try translateEscape()
            former = .atom(start: start)
        case "[":
            bracketStart = start
            try openBracket()
        case "(":
            former = .other
            if peek(1) == "?" { try translateGroup() } else { append(1) }
        case "{": translateCount()
        case "*", "+", "?": try translateRepetition()
        case ")", "|", "^", "$":
            append(1)
            former = .other
        default:
            append(1)
            former = .atom(start: start)
        }
    }

    private mutating func translateInBrackets() throws(TokenizerError) {
        switch scalars[index] {
        case "\\": try translateEscape()
        case "[": try openBracket()
        case "]":
            bracketDepth -= 1
            append(1)
            former = .atom(start: bracketStart)
        case "-" where peek(1) == "-": throw Self.refusal("-- between brackets")
        default: append(1)
        }
    }

    private mutating func openBracket() throws(TokenizerError) {
        if peek(1) == ":" { throw Self.refusal("[: :]") }
        bracketDepth += 1
        append(1)
        if peek(0) == "^" { append(1) }
        if peek(0) == "]" { throw Self.refusal("an empty []") }
    }

    private mutating func translateRepetition() throws(TokenizerError) {
        switch former {
        case .count where scalars[index] == "+": throw Self.refusal("+ after {}")
        case .count(isExact: true) where scalars[index] == "?": throw Self.refusal("? after {}")
        case .count: append(1)
        case .atom(let start) where peek(1) == "+":
            // ICU needs memory for each step of `a++`, and none for the same as `(?>a+)`.
            result.insert(contentsOf: "(?>".unicodeScalars, at: start)
            append(1)
            replace(1, with: ")")
        case .atom, .other: append(peek(1) == "+" || peek(1) == "?" ? 2 : 1)
        }
        former = .other
    }

    private mutating func translateEscape() throws(TokenizerError) {
        guard let letter = peek(1) else { throw TokenizerError(.damaged, "the pattern ends in a backslash") }
        let isSet = bracketDepth > 0
        switch letter {
        case "s": replace(2, with: #"\p{White_Space}"#)
        case "S": replace(2, with: #"\P{White_Space}"#)
        case "w": replace(2, with: "[\(isSet ? Self.wordsInSets : Self.words)]")
        case "W": replace(2, with: "[^\(isSet ? Self.wordsInSets : Self.words)]")
        case "h": replace(2, with: "[0-9a-fA-F]")
        case "H": replace(2, with: "[^0-9a-fA-F]")
        case "v": replace(2, with: #"\x0B"#)
        case "b" where !isSet:
            replace(2, with: "(?:(?<=[\(Self.words)])(?![\(Self.words)])|(?<![\(Self.words)])(?=[\(Self.words)]))")
        case "B" where !isSet:
            replace(2, with: "(?:(?<=[\(Self.words)])(?=[\(Self.words)])|(?<![\(Self.words)])(?![\(Self.words)]))")
        case "Z" where !isSet: replace(2, with: #"(?=\n?\z)"#)
        case "d", "D", "n", "r", "t", "f", "a", "e": append(2)
        case "x", "u": try translateCode()
        case "A", "z", "1", "2", "3", "4", "5", "6", "7", "8", "9":
            if isSet { throw Self.refusal("\\\(letter) between brackets") }
            append(2)
        case "p", "P": try translateProperty()
        default:
            // Letters and digits that neither engine, or only one, knows; everything else stands for itself.
            guard !letter.isASCII || !(letter.properties.isAlphabetic || letter.properties.numericType != nil) else {
                throw Self.refusal("\\\(letter)")
            }
            append(2)
        }
    }

    /// `\x41`, `\x{e9}` or `\u00e9`, with all digits. Two digits above 7F would be a byte to Oniguruma.
    private mutating func translateCode() throws(TokenizerError) {
        let text = String(String.UnicodeScalarView(scalars[index...].prefix(12)))
        let code = /\\(x[0-7][0-9A-Fa-f]|x\{[0-9A-Fa-f]{1,8}\}|u[0-9A-Fa-f]{4})/.matchingSemantics(.unicodeScalar)
        guard let match = text.prefixMatch(of: code) else { throw Self.refusal("\(text.prefix(2)) like this") }
        append(match.0.utf8.count)
    }

    /// `\p{Name}`, `\P{Name}` and `\p{^Name}`.
    private mutating func translateProperty() throws(TokenizerError) {
        guard peek(2) == "{", let end = scalars[index...].firstIndex(of: "}") else {
            throw Self.refusal("\\\(scalars[index + 1]) without {}")
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
            throw Self.refusal("\\p{\(name)}")
        }
        replace(end + 1 - index, with: isNegative ? "\\P{\(name)}" : "\\p{\(name)}")
    }

    /// What begins with `(?`: flags are read one by one, lookaround and other groups are the same in both.
    private mutating func translateGroup() throws(TokenizerError) {
        let isFirst = index == 0
        append(2)
        switch peek(0) {
        case ":", "=", "!", ">": append(1)
        case "<":
            guard peek(1) == "=" || peek(1) == "!" else { throw Self.refusal("named groups") }
            append(2)
        default:
            while let flag = peek(0), flag != ":", flag != ")" {
                switch flag {
                case "i", "-": append(1)
                case "m": replace(1, with: "s")
                default: throw Self.refusal("(?\(flag)")
                }
            }
            // Flags without a colon also take in the alternatives that follow, in Oniguruma alone.
            if peek(0) == ")", !isFirst { throw Self.refusal("flags in the middle") }
        }
    }

    private mutating func translateCount() {
        let start = result.count
        let end = scalars[index...].firstIndex(of: "}") ?? index
        let inside = scalars[min(index + 1, end)..<end]
        guard !inside.isEmpty, inside.allSatisfy({ ("0"..."9").contains($0) || $0 == "," }) else {
            append(1)
            former = .atom(start: start)
            return
        }
        append(end + 1 - index)
        former = .count(isExact: !inside.contains(","))
    }
}
