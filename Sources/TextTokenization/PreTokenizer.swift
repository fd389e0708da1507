internal import JSONText

/// A step that splits a text into the pieces within which tokens are looked for.
enum PreTokenizer: Sendable {
    case split(TextPattern, SplitBehavior, inverted: Bool)
    case byteLevel(addsPrefixSpace: Bool, pattern: TextPattern?)
    case digits(individually: Bool)
    case metaspace(Metaspace)

    /// - Throws: `TokenizerError` if the step isn't supported or has wrong fields.
    init(_ value: JSONValue) throws(JSONError) {
        switch try Component.type(of: value) {
        case "Split":
            self = .split(
                try TextPattern(try value.required("pattern")),
                try SplitBehavior(try value.required("behavior")),
                inverted: try value.required("invert").bool()
            )
        case "ByteLevel":
            // trim_offsets is about offsets, which aren't computed here.
            let usesPattern = try value.optional("use_regex")?.bool() ?? true
            let addsPrefixSpace = try value.required("add_prefix_space").bool()
            do {
                self = .byteLevel(
                    addsPrefixSpace: addsPrefixSpace,
                    pattern: usesPattern
                        ? .regex(try RegularExpression(ByteLevelAlphabet.pattern, field: value.path ?? "pre_tokenizer"))
                        : nil
                )
            } catch {
                throw value.fault(error.message, .unsupported)
            }
        case "Digits": self = .digits(individually: try value.required("individual_digits").bool())
        case "Metaspace": self = .metaspace(try Metaspace(value))
        default:
            throw try Component.refusal(value, supported: "Split, ByteLevel, Digits, Metaspace or Sequence")
        }
    }

    /// Splits the pieces further.
    func apply(to pieces: inout TextPieces, budget: WorkBudget) throws(TokenizerError) {
        switch self {
        case .split(let pattern, let behavior, let inverted):
            try Self.split(&pieces, at: pattern, behavior, inverted: inverted, budget: budget)
        case .digits(let individually):
            let bytes = pieces.bytes
            try pieces.split { place throws(TokenizerError) in
                var places: [Range<Int>] = []
                forEachScalar(of: bytes[place]) { if $0.isNumber { places.append($1) } }
                return (individually ? SplitBehavior.isolated : .contiguous).split(place, at: places)
            }
        case .byteLevel(let addsPrefixSpace, let pattern):
            if addsPrefixSpace {
                pieces.rewrite { _, text, output in
                    if text.first != UInt8(ascii: " ") { output.append(UInt8(ascii: " ")) }
                    output += text
                }
            }
            if let pattern { try Self.split(&pieces, at: pattern, .isolated, inverted: false, budget: budget) }
            let characters = ByteLevelAlphabet.characters
            pieces.rewrite { _, text, output in
                for byte in text { output += characters[Int(byte)] }
            }
        case .metaspace(let metaspace): try metaspace.apply(to: &pieces)
        }
    }

    private static func split(
        _ pieces: inout TextPieces,
        at pattern: TextPattern,
        _ behavior: SplitBehavior,
        inverted: Bool,
        budget: WorkBudget
    ) throws(TokenizerError) {
        let bytes = pieces.bytes
        try pieces.split { place throws(TokenizerError) in
            let matches = try pattern.matches(in: bytes[place], budget: budget)
            return behavior.split(place, at: matches, inverted: inverted)
        }
    }
}

extension Unicode.Scalar {
    /// Whether Unicode calls it a number: decimal digits, letters like Ⅷ, and others like ½.
    fileprivate var isNumber: Bool {
        switch properties.generalCategory {
        case .decimalNumber, .letterNumber, .otherNumber: true
        default: false
        }
    }
}
