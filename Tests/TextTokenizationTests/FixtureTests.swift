import Foundation
import TestSupport
import Testing
import TextTokenization

/// Tokens and texts are those of the Python package, for every kind of tokenizer and the demo model's.
@Suite struct FixtureTests {
    /// A tokenizer and what `Tools/make-tokenizer-fixtures` wrote about it.
    struct Fixture: Sendable, CustomTestStringConvertible {
        struct Entry: Decodable {
            let text: String?
            let ids: [Int32]
            let bare: [Int]?
            let decoded: String?
            let special: String?
        }

        let name: String

        var testDescription: String { name }

        func tokenizer() throws -> Tokenizer {
            let demo = ProjectFiles.root.appending(path: "Tools/DemoModel/tokenizer.json").path
            return try Tokenizer(path: name == "demo-model" ? demo : ProjectFiles.fixture("tokenizers/\(name).json"))
        }

        func entries() throws -> [Entry] {
            let file = URL(filePath: ProjectFiles.fixture("tokenizers/\(name).expected.json"))
            return try JSONDecoder().decode([Entry].self, from: try Data(contentsOf: file))
        }

        static let all: [Fixture] = {
            let folder = ProjectFiles.fixture("tokenizers")
            let files = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
            return files.filter { $0.hasSuffix(".expected.json") }.sorted().map {
                Fixture(name: String($0.dropLast(".expected.json".count)))
            }
        }()
    }

    @Test("no fixture is missing")
    func count() {
        #expect(Fixture.all.count == 38)
    }

    @Test("texts have the tokens of the Python package", arguments: Fixture.all)
    func encoding(fixture: Fixture) throws {
        let tokenizer = try fixture.tokenizer()
        var count = 0
        for entry in try fixture.entries() {
            guard let text = entry.text, let bare = entry.bare else { continue }
            #expect(try tokenizer.encode(text) == entry.ids, "\(text.debugDescription)")
            #expect(
                try tokenizer.encode(text, addingSpecialTokens: false) == Array(entry.ids[bare[0]...].prefix(bare[1])),
                "\(text.debugDescription)"
            )
            count += 1
        }
        #expect(count >= 14)
    }

    @Test("tokens have the texts of the Python package", arguments: Fixture.all)
    func decoding(fixture: Fixture) throws {
        let tokenizer = try fixture.tokenizer()
        for entry in try fixture.entries() {
            let expected = try #require(entry.decoded ?? entry.text)
            #expect(bytes(tokenizer.decode(entry.ids)) == bytes(expected), "\(entry.ids)")
            #expect(
                bytes(tokenizer.decode(entry.ids, skippingSpecialTokens: false)) == bytes(entry.special ?? expected),
                "\(entry.ids)"
            )
        }
    }

    @Test("tokens one by one have the text of all together", arguments: Fixture.all, [true, false])
    func streaming(fixture: Fixture, skipping: Bool) throws {
        let tokenizer = try fixture.tokenizer()
        var stream = tokenizer.makeTextStream(skippingSpecialTokens: skipping)
        for entry in try fixture.entries() {
            var text: [UInt8] = []
            // Bytes, since String would join what two chunks have to do with each other.
            for id in entry.ids { text += bytes(stream.append(id)) }
            text += bytes(stream.finish())
            #expect(text == bytes(tokenizer.decode(entry.ids, skippingSpecialTokens: skipping)), "\(entry.ids)")
        }
    }
}
