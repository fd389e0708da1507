internal import JSONText

/// SentencePiece's way with spaces: they become a visible character, which words begin with.
struct Metaspace: Sendable {
    enum PrependScheme: String, Sendable {
        case first, never, always
    }

    /// What stands for a space, in UTF-8.
    let replacement: [UInt8]
    let scheme: PrependScheme
    let splits: Bool

    /// Reads a pre-tokenizer or a decoder of this type.
    init(_ value: JSONValue) throws(JSONError) {
        replacement = Array(String(try value.required("replacement").character()).utf8)
        var scheme = PrependScheme.always
        if let name = try value.member("prepend_scheme") {
            guard let known = PrependScheme(rawValue: try name.text()) else {
                throw name.fault("must be first, never or always", .unsupported)
            }
            scheme = known
        }
        // Files from before there was a scheme, which 0.23 itself refuses: older versions read them so.
        if let addsPrefix = try value.optional("add_prefix_space"), try !addsPrefix.bool() {
            guard try value.member("prepend_scheme") == nil || scheme == .never else {
                throw addsPrefix.fault("contradicts prepend_scheme; save the tokenizer again")
            }
            scheme = .never
        }
        self.scheme = scheme
        splits = try value.optional("split")?.bool() ?? true
    }

    /// Replaces the spaces of the pieces and splits them into words.
    func apply(to pieces: inout TextPieces) throws(TokenizerError) {
        pieces.rewrite { piece, text, output in
            let start = output.count
            for byte in text {
                if byte == UInt8(ascii: " ") { output += replacement } else { output.append(byte) }
            }
            let isWanted =
                switch scheme {
                case .always: true
                case .first: piece.isAtStart
                case .never: false
                }
            if isWanted, !output[start...].starts(with: replacement) {
                output.insert(contentsOf: replacement, at: start)
            }
        }
        guard splits else { return }
        let bytes = pieces.bytes
        try pieces.split { place throws(TokenizerError) in
            SplitBehavior.mergedWithNext.split(place, at: TextPattern.places(of: replacement, in: bytes[place]))
        }
    }
}
