internal import ByteStorage

/// A JSON text, taken apart but not converted: strings and numbers stay where they lie in the file.
///
/// Foundation's decoder would lose entries of a vocabulary, because it keys objects by `String`, whose equality is
/// canonical equivalence. Here an object is a list of members in the file's order, and strings are bytes. The values
/// are nodes of one array, depth first, so that a vocabulary of 100,000s of entries costs a few milliseconds.
///
/// Source: RFC 8259. Numbers may be of any size; escaped surrogates must come in pairs.
struct JSONDocument: Sendable {
    enum Kind: UInt8, Sendable {
        case null, `false`, `true`, number, string, escapedString, array, object
    }

    struct Node: Sendable {
        let kind: Kind
        /// The value's first byte; of strings, the first byte after the quotation mark.
        let start: UInt32
        /// The byte after the value's last one; of arrays and objects, the index of the node after their last.
        var end: UInt32
    }

    /// The longest file that is read. The largest tokenizers in use have some 30 MB.
    static let maximumBytes = 1 << 30

    let bytes: [UInt8]
    let nodes: [Node]

    /// - Throws: `TokenizerError` if the bytes aren't a JSON value in UTF-8.
    init(_ file: SharedBytes) throws(TokenizerError) {
        guard file.count <= Self.maximumBytes else {
            throw TokenizerError(
                .unsupported,
                "the file has \(file.count) bytes, more than \(Self.maximumBytes); pass a tokenizer.json"
            )
        }
        let bytes = unsafe file.withUnsafeBytes { unsafe [UInt8]($0) }
        do {
            _ = try UTF8Span(validating: bytes.span)
        } catch {
            throw TokenizerError(
                .damaged,
                at: error.byteOffsets.lowerBound,
                "the file is not UTF-8; pass a tokenizer.json"
            )
        }
        var parser = JSONParser(bytes)
        nodes = try parser.parse()
        self.bytes = bytes
    }

    var root: JSONValue { JSONValue(document: self, node: 0, path: "") }

    /// The index of the node after `node` and all within it.
    func index(after node: Int) -> Int {
        switch nodes[node].kind {
        case .array, .object: Int(nodes[node].end)
        default: node + 1
        }
    }

    /// Appends the bytes of a string, unescaped.
    func appendString(_ node: Int, to output: inout [UInt8]) {
        let place = Int(nodes[node].start)..<Int(nodes[node].end)
        guard nodes[node].kind == .escapedString else { return output.append(contentsOf: bytes[place]) }
        var index = place.lowerBound
        while index < place.upperBound {
            let byte = bytes[index]
            index += 1
            guard byte == UInt8(ascii: "\\") else {
                output.append(byte)
                continue
            }
            let escape = bytes[index]
            index += 1
            switch escape {
            case UInt8(ascii: "b"): output.append(0x08)
            case UInt8(ascii: "t"): output.append(0x09)
            case UInt8(ascii: "n"): output.append(0x0A)
            case UInt8(ascii: "f"): output.append(0x0C)
            case UInt8(ascii: "r"): output.append(0x0D)
            case UInt8(ascii: "u"):
                var scalar = hexadecimal(at: index)
                index += 4
                if scalar & 0xFC00 == 0xD800 {
                    scalar = 0x10000 + (scalar & 0x3FF) << 10 + (hexadecimal(at: index + 2) & 0x3FF)
                    index += 6
                }
                // The parser has checked that surrogates come in pairs.
                output.append(contentsOf: UTF8.encode(Unicode.Scalar(scalar) ?? "\u{FFFD}") ?? .init())
            default: output.append(escape)
            }
        }
    }

    private func hexadecimal(at index: Int) -> UInt32 {
        bytes[index..<index + 4].reduce(0) { $0 << 4 | UInt32(JSONParser.hexadecimalDigit($1) ?? 0) }
    }
}
