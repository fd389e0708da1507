/// Tokens turned to text one by one, as a model writes them.
///
/// The texts that `append` and `finish` return, joined, are what `Tokenizer.decode` makes of all the tokens.
///
///     var stream = tokenizer.makeTextStream()
///     for token in tokens { print(stream.append(token), terminator: "") }
///     print(stream.finish())
public struct TextStream: Sendable {
    private let tokenizer: Tokenizer
    private let skipsSpecialTokens: Bool
    private var steps: [TokenDecoderState]
    private var isAtStart = true

    init(_ tokenizer: Tokenizer, skippingSpecialTokens: Bool) {
        self.tokenizer = tokenizer
        skipsSpecialTokens = skippingSpecialTokens
        steps = (tokenizer.decoders ?? []).map { TokenDecoderState($0) }
    }

    /// Takes the next token.
    ///
    /// - Returns: the text that is certain now. It is empty while a character is incomplete, and for tokens that are
    ///   unknown or left out. Bytes that were spelt out one by one (`<0xE2>`) are held back until another token comes.
    public mutating func append(_ token: Int32) -> String {
        String(decoding: appendBytes(token), as: UTF8.self)
    }

    /// Ends the text: returns what was held back, with U+FFFD for what remained incomplete, and begins anew.
    public mutating func finish() -> String {
        String(decoding: finishBytes(), as: UTF8.self)
    }

    mutating func appendBytes(_ token: Int32) -> [UInt8] {
        guard let chunk = tokenizer.chunk(of: token, skippingSpecialTokens: skipsSpecialTokens) else { return [] }
        guard tokenizer.decoders != nil else {
            // Without a decoder there are spaces between the tokens.
            defer { isAtStart = false }
            return isAtStart ? chunk.bytes : [UInt8(ascii: " ")] + chunk.bytes
        }
        return pass([chunk], from: 0)
    }

    mutating func finishBytes() -> [UInt8] {
        var result: [UInt8] = []
        for index in steps.indices {
            var chunks: [TokenChunk] = []
            steps[index].finish(to: &chunks)
            result += pass(chunks, from: index + 1)
        }
        self = TextStream(tokenizer, skippingSpecialTokens: skipsSpecialTokens)
        return result
    }

    /// Sends chunks through the steps from `first` on.
    private mutating func pass(_ chunks: [TokenChunk], from first: Int) -> [UInt8] {
        var chunks = chunks
        for index in first..<steps.count {
            var output: [TokenChunk] = []
            for chunk in chunks { steps[index].append(chunk, to: &output) }
            chunks = output
        }
        return chunks.flatMap(\.bytes)
    }
}
