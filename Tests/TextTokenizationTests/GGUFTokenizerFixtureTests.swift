import EngineFormats
import Foundation
import TestSupport
import Testing
import TextTokenization
import ThinkCompress

/// Tokens and texts are those of llama.cpp, for every kind of tokenizer that a GGUF file can have.
@Suite struct GGUFTokenizerFixtureTests {
    /// A vocabulary and what `Tools/make-gguf-tokenizer-fixtures` wrote about it.
    struct Fixture: Sendable, CustomTestStringConvertible {
        struct Entry: Decodable {
            let text: String
            let ids: [Int32]
            let whole: [Int32]?
            let decoded: String?
            let special: String?
        }

        let vocabulary: String
        let expected: String

        init(name: String) {
            vocabulary = ProjectFiles.fixture("gguf-tokenizers/\(name).gguf")
            expected = ProjectFiles.fixture("gguf-tokenizers/\(name).expected.json")
        }

        /// One that the environment names, to compare a real vocabulary on request.
        init?(_ environment: [String: String]) {
            guard let vocabulary = environment["THINK_COMPRESS_GGUF"],
                let expected = environment["THINK_COMPRESS_GGUF_EXPECTED"]
            else { return nil }
            self.vocabulary = vocabulary
            self.expected = expected
        }

        var testDescription: String { URL(filePath: vocabulary).deletingPathExtension().lastPathComponent }

        func tokenizer() throws -> Tokenizer { try Tokenizer(GGUFFile(MappedFile.bytes(path: vocabulary))) }

        func entries() throws -> [Entry] {
            try JSONDecoder().decode([Entry].self, from: try Data(contentsOf: URL(filePath: expected)))
        }

        static let all =
            [
                "gpt-2", "default", "smollm", "llama-bpe", "qwen2", "tekken", "gpt-4o", "llama", "llama-bare",
                "special-gpt2", "special-llama",
            ].map { Fixture(name: $0) } + [Fixture(ProcessInfo.processInfo.environment)].compactMap(\.self)
    }

    @Test("texts have the tokens of llama.cpp", arguments: Fixture.all)
    func encoding(fixture: Fixture) throws {
        let tokenizer = try fixture.tokenizer()
        var count = 0
        for entry in try fixture.entries() {
            let tokens = try tokenizer.encode(entry.text, addingSpecialTokens: false)
            #expect(tokens == entry.ids, "\(entry.text.debugDescription)")
            if let whole = entry.whole {
                #expect(try tokenizer.encode(entry.text) == whole, "\(entry.text.debugDescription)")
                count += 1
            }
        }
        #expect(count == 8)
    }

    @Test("tokens have the texts of llama.cpp, all together and one by one", arguments: Fixture.all)
    func decoding(fixture: Fixture) throws {
        let tokenizer = try fixture.tokenizer()
        for entry in try fixture.entries() {
            let expected = entry.decoded ?? entry.text
            for (skips, text) in [(true, expected), (false, entry.special ?? expected)] {
                let decoded = tokenizer.decode(entry.ids, skippingSpecialTokens: skips)
                #expect(bytes(decoded) == bytes(text), "\(entry.text.debugDescription)")
                var stream = tokenizer.makeTextStream(skippingSpecialTokens: skips)
                var joined: [UInt8] = []
                for id in entry.ids { joined += bytes(stream.append(id)) }
                joined += bytes(stream.finish())
                #expect(joined == bytes(text), "\(entry.text.debugDescription)")
            }
        }
    }
}
