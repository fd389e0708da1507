internal import JSONText

/// A step from tokens back to text.
///
/// Tokens come in chunks, and a chunk says whether its token ends with it: after `Fuse` or `ByteLevel` everything is
/// one token, which has no end before the last, but whose text can be passed on as it comes. A step holds back only
/// what may still change, and a text decoded at once is the same as one decoded token by token.
///
/// Source: `decoders` of Hugging Face tokenizers 0.23.
enum TokenDecoder: Sendable {
    case byteLevel
    case byteFallback
    case fuse
    case replace(pattern: [UInt8], content: [UInt8])
    case strip(character: [UInt8], start: Int, stop: Int)
    /// - Parameter trimsFirst: whether the first token loses the character instead of getting a space for it.
    case metaspace(replacement: [UInt8], trimsFirst: Bool)

    /// How many times longer a text may become by all steps together, so that no file can fill the memory.
    private static let maximumGrowth = 4096

    /// The steps of a file's `decoder`, or nil if there is none: then there are spaces between tokens.
    ///
    /// - Throws: `JSONError` if one isn't supported or has wrong fields.
    static func list(_ value: JSONValue?, budget: WorkBudget) throws(JSONError) -> [TokenDecoder]? {
        guard let value else { return nil }
        let steps = try Component.list(value, "decoders", budget, TokenDecoder.init)
        var growth = 1
        for step in steps {
            growth *= max(step.growth, 1)
            guard growth <= maximumGrowth else {
                throw value.fault(
                    "the steps could make a text more than \(maximumGrowth) times as long; leave some of them out",
                    .unsupported
                )
            }
        }
        return steps
    }

    private init(_ value: JSONValue) throws(JSONError) {
        switch try Component.type(of: value) {
        case "ByteLevel": self = .byteLevel
        case "ByteFallback": self = .byteFallback
        case "Fuse": self = .fuse
        case "Replace":
            let pattern = try value.required("pattern")
            guard case .literal(let literal) = try TextPattern(pattern) else {
                throw pattern.fault("a Regex is not supported in a decoder; use a String", .unsupported)
            }
            self = .replace(pattern: literal, content: try value.required("content").bytes())
        case "Strip":
            self = .strip(
                character: Array(String(try value.required("content").character()).utf8),
                start: Int(try value.required("start").number()),
                stop: Int(try value.required("stop").number())
            )
        case "Metaspace":
            let metaspace = try Metaspace(value)
            self = .metaspace(replacement: metaspace.replacement, trimsFirst: metaspace.scheme != .never)
        default:
            throw try Component.refusal(
                value,
                supported: "ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace or Sequence"
            )
        }
    }

    /// The byte that a token like `<0x0A>` stands for.
    static func byte(of token: [UInt8]) -> UInt8? {
        guard token.count == 6, token.starts(with: "<0x".utf8), token[5] == UInt8(ascii: ">"),
            let high = hexadecimalDigit(token[3]), let low = hexadecimalDigit(token[4])
        else { return nil }
        return high << 4 | low
    }

    private static func hexadecimalDigit(_ byte: UInt8) -> UInt8? {
        Character(Unicode.Scalar(byte)).hexDigitValue.map(UInt8.init)
    }

    /// How many times longer a text can become.
    private var growth: Int {
        switch self {
        case .fuse, .strip, .metaspace: 1
        case .byteLevel, .byteFallback: 3  // A broken byte becomes U+FFFD.
        case .replace(let pattern, let content): (content.count + pattern.count - 1) / pattern.count
        }
    }
}
