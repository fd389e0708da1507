import Testing
import TextTokenization

extension Tokenizer {
    /// Uses a tokenizer for all that it can do with texts: tokens must be its own, and a stream must give what decoding
    /// them at once does.
    func expectSoundTokens(of texts: [String]) {
        for text in texts {
            guard let tokens = try? encode(text) else { continue }
            #expect(tokens.allSatisfy { $0 >= 0 && Int($0) < vocabularySize })
            var stream = makeTextStream()
            let joined = tokens.reduce(into: "") { $0 += stream.append($1) } + stream.finish()
            #expect(joined.utf8.elementsEqual(decode(tokens).utf8))
        }
        _ = decode(-2...Int32(clamping: vocabularySize + 2), skippingSpecialTokens: false)
    }
}
