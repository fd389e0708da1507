/// How a text is split before byte-level tokens are looked for, as a GGUF file's `tokenizer.ggml.pre` names it.
///
/// Source: llama.cpp (`llama-vocab.cpp`, `unicode.cpp`), whose patterns differ a little from those of the models' own
/// `tokenizer.json`: contractions know ASCII letters alone, and cases of letters those of ASCII.
struct GGUFPreTokenizer: Sendable {
    static let key = "tokenizer.ggml.pre"

    private enum Step {
        /// Matches are set apart from what lies between them.
        case pattern(String)
        case digits
    }

    let names: [String]
    private let steps: [Step]
    /// Whether words of the vocabulary are tokens at once.
    let ignoresMerges: Bool
    /// Whether a text begins with a token for the beginning if the file doesn't say.
    let addsBegin: Bool

    private init(_ names: [String], _ steps: [Step], ignoresMerges: Bool = false, addsBegin: Bool = false) {
        self.names = names
        self.steps = steps
        self.ignoresMerges = ignoresMerges
        self.addsBegin = addsBegin
    }

    private static let contraction = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
    private static let spaces = #"\s*[\r\n]+|\s+(?!\S)|\s+"#

    /// Words, digits by some, signs and spaces.
    private static func words(digits: String) -> Step {
        .pattern(
            contraction + #"|[^\r\n\p{L}\p{N}]?\p{L}+|"# + digits + #"| ?[^\s\p{L}\p{N}]+[\r\n]*|"# + spaces
        )
    }

    /// The same, where words end before a capital letter.
    private static func casedWords(ending: String, digits: String) -> Step {
        let (upper, lower) = (#"[\p{L}&&[^a-z]]"#, #"[\p{L}&&[^A-Z]]"#)
        let start = #"[^\r\n\p{L}\p{N}]?"#
        return .pattern(
            "\(start)\(upper)*\(lower)+\(ending)|\(start)\(upper)+\(lower)*\(ending)|\(digits)"
                + #"| ?[^\s\p{L}\p{N}]+[\r\n/]*|"# + spaces
        )
    }

    static let all = [
        Self(
            ["llama-bpe", "llama3", "llama-v3", "pixtral"],
            [words(digits: #"\p{N}{1,3}"#)],
            ignoresMerges: true,
            addsBegin: true
        ),
        Self(["qwen2", "deepseek-r1-qwen"], [words(digits: #"\p{N}"#)]),
        Self(["smollm"], [.digits, .pattern(ByteLevelAlphabet.pattern)]),
        Self(["gpt-2"], [.pattern(ByteLevelAlphabet.pattern)]),
        Self(
            ["tekken"],
            [casedWords(ending: "", digits: #"\p{N}"#)],
            ignoresMerges: true,
            addsBegin: true
        ),
        Self(["gpt-4o"], [casedWords(ending: "\(contraction)?", digits: #"\p{N}{1,3}"#)]),
        Self(
            ["default"],
            [
                .pattern(#"[\p{P}$+<=>^~|]+"#), .pattern(ByteLevelAlphabet.pattern), .pattern(#"\p{N}+"#),
                .pattern("[0-9][0-9][0-9]"),
            ]
        ),
    ]

    /// The steps to characters that stand for bytes.
    ///
    /// - Throws: `TokenizerError` if the platform's regular expressions can't be had.
    func preTokenizers() throws(TokenizerError) -> [PreTokenizer] {
        var result: [PreTokenizer] = []
        for step in steps {
            switch step {
            case .digits: result.append(.digits(individually: true))
            case .pattern(let pattern):
                let expression = try RegularExpression(pattern, field: Self.key)
                result.append(.split(.regex(expression), .isolated, inverted: false))
            }
        }
        return result + [.byteLevel(addsPrefixSpace: false, pattern: nil)]
    }
}
