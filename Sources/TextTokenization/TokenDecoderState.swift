/// A part of a token's text, whole characters.
struct TokenChunk {
    var bytes: [UInt8]
    /// Whether the token ends here.
    var endsToken: Bool
    /// Whether it is a whole token that says what it is in plain text: not in the vocabulary's spelling of bytes and
    /// spaces.
    var isVerbatim = false
}

/// A `TokenDecoder` at work: what it has held back so far.
struct TokenDecoderState: Sendable {
    private let decoder: TokenDecoder
    /// The current token's text, as far as it has to wait.
    private var held: [UInt8] = []
    /// Bytes whose neighbours may still come.
    private var bytes: [UInt8] = []
    /// Whether nothing of the current token has come yet, where that matters.
    private var isAtTokenStart = true
    private var isFirstToken = true
    /// How many characters `Strip` may still remove from the current token's beginning.
    private var removable = 0

    init(_ decoder: TokenDecoder) { self.decoder = decoder }

    /// Passes on what is certain now.
    mutating func append(_ chunk: TokenChunk, to output: inout [TokenChunk]) {
        switch decoder {
        case .fuse: output.append(TokenChunk(bytes: chunk.bytes, endsToken: false))
        case .byteLevel:
            guard let token = wholeToken(chunk) else { return }
            appendBytes(chunk.isVerbatim ? token : ByteLevelAlphabet.bytes(of: token[...]) ?? token, to: &output)
        case .byteFallback:
            guard let token = wholeToken(chunk) else { return }
            if !chunk.isVerbatim, let byte = TokenDecoder.byte(of: token) {
                bytes.append(byte)
            } else {
                flushBytes(to: &output)
                output.append(TokenChunk(bytes: token, endsToken: true, isVerbatim: chunk.isVerbatim))
            }
        case .replace where chunk.isVerbatim: output.append(chunk)
        case .replace(let pattern, let content): replace(pattern, content, chunk, to: &output)
        case .strip(let character, let start, let stop): strip(character, start, stop, chunk, to: &output)
        case .metaspace(let replacement, let trimsFirst):
            replace(replacement, isFirstToken && trimsFirst ? [] : [UInt8(ascii: " ")], chunk, to: &output)
            if chunk.endsToken { isFirstToken = false }
        }
    }

    /// Passes on what was held back for more tokens, of which there are none.
    mutating func finish(to output: inout [TokenChunk]) {
        switch decoder {
        case .fuse: output.append(TokenChunk(bytes: [], endsToken: true))
        case .byteLevel:
            output.append(TokenChunk(bytes: Self.repaired(bytes), endsToken: true))
            bytes = []
        case .byteFallback: flushBytes(to: &output)
        case .replace, .strip, .metaspace: break
        }
    }

    // MARK: - Bytes

    /// The token that ends with the chunk, or nil as long as it goes on.
    private mutating func wholeToken(_ chunk: TokenChunk) -> [UInt8]? {
        guard chunk.endsToken else {
            held += chunk.bytes
            return nil
        }
        guard !held.isEmpty else { return chunk.bytes }
        defer { held = [] }
        return held + chunk.bytes
    }

    /// Passes on all bytes but those of a character that is incomplete.
    private mutating func appendBytes(_ new: [UInt8], to output: inout [TokenChunk]) {
        bytes += new
        let count = bytes.count - Self.incompleteCount(of: bytes)
        guard count > 0 else { return }
        output.append(TokenChunk(bytes: Self.repaired(Array(bytes.prefix(count))), endsToken: false))
        bytes.removeFirst(count)
    }

    /// The bytes as valid UTF-8: U+FFFD for what is broken, as Unicode recommends and the original does.
    private static func repaired(_ bytes: [UInt8]) -> [UInt8] {
        Array(String(decoding: bytes, as: UTF8.self).utf8)
    }

    /// Passes on the run of bytes: as text if all of it is valid, else as one U+FFFD for each byte.
    private mutating func flushBytes(to output: inout [TokenChunk]) {
        guard !bytes.isEmpty else { return }
        let text = String(decoding: bytes, as: UTF8.self)
        if text.utf8.elementsEqual(bytes) {
            output.append(TokenChunk(bytes: bytes, endsToken: true))
        } else {
            let replacement = Array("\u{FFFD}".utf8)
            for _ in bytes { output.append(TokenChunk(bytes: replacement, endsToken: true)) }
        }
        bytes = []
    }

    // MARK: - Replacing and stripping

    private mutating func replace(
        _ pattern: [UInt8],
        _ content: [UInt8],
        _ chunk: TokenChunk,
        to output: inout [TokenChunk]
    ) {
        let text = held + chunk.bytes
        let places = TextPattern.places(of: pattern, in: text[...])
        let end = places.last?.upperBound ?? 0
        // What is behind the last match may begin another one, unless the token ends; characters stay whole.
        var cut = chunk.endsToken ? text.count : max(end, text.count - (pattern.count - 1))
        while cut > end, cut < text.count, text[cut] & 0xC0 == 0x80 { cut -= 1 }
        let result = Normalizer.replace(places, of: Array(text[..<cut]), with: content)
        held = Array(text[cut...])
        output.append(TokenChunk(bytes: result, endsToken: chunk.endsToken))
    }

    private mutating func strip(
        _ character: [UInt8],
        _ start: Int,
        _ stop: Int,
        _ chunk: TokenChunk,
        to output: inout [TokenChunk]
    ) {
        if isAtTokenStart { removable = start }
        var text = (held + chunk.bytes)[...]
        while removable > 0, text.starts(with: character) {
            text = text.dropFirst(character.count)
            removable -= 1
        }
        if !text.isEmpty { removable = 0 }
        var end = text.endIndex
        for _ in 0..<stop {
            guard text[..<end].suffix(character.count).elementsEqual(character) else { break }
            end -= character.count
        }
        // The stripped end is the token's end only when the token ends.
        held = chunk.endsToken ? [] : Array(text[end...])
        isAtTokenStart = chunk.endsToken
        output.append(TokenChunk(bytes: Array(text[..<end]), endsToken: chunk.endsToken))
    }
}

// MARK: - The end of a text in UTF-8 that goes on

extension TokenDecoderState {
    /// How many bytes at the end begin a character that more bytes could complete: 0 to 3.
    static func incompleteCount(of bytes: [UInt8]) -> Int {
        for count in 1...3 where count <= bytes.count {
            let first = bytes[bytes.count - count]
            if first & 0xC0 == 0x80 { continue }
            let needed =
                switch first {
                case 0xC2...0xDF: 2
                case 0xE0...0xEF: 3
                case 0xF0...0xF4: 4
                default: 1
                }
            guard needed > count else { return 0 }
            return count == 1 || isSecond(bytes[bytes.count - count + 1], after: first) ? count : 0
        }
        return 0
    }

    /// Whether a continuation byte may follow this first byte: some would be too long, surrogates or beyond U+10FFFF.
    private static func isSecond(_ byte: UInt8, after first: UInt8) -> Bool {
        switch first {
        case 0xE0: byte >= 0xA0
        case 0xED: byte < 0xA0
        case 0xF0: byte >= 0x90
        case 0xF4: byte < 0x90
        default: true
        }
    }
}
