import Foundation
import TestSupport
import Testing
import ThinkCompress

@testable import TextTokenization

/// Tokens turned to text one by one.
@Suite struct TextStreamTests {
    private static func chunks(_ tokens: [Int32], of file: TokenizerFile) throws -> [String] {
        var stream = try file.tokenizer.makeTextStream()
        return tokens.map { stream.append($0) } + [stream.finish()]
    }

    /// Bytes as GPT-2 writes them: é is Ã©, 😀 is ðŁĺĢ.
    private static let byteLevel = TokenizerFile(
        decoder: #"{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}"#,
        vocabulary: #"{"Ã":0,"©":1,"ð":2,"Ł":3,"ĺĢ":4,"a":5,"Ġ":6,"日":7}"#,
        merges: "[]"
    )

    @Test("characters come when their last byte has come")
    func completeCharacters() throws {
        #expect(try Self.chunks([5, 0, 1, 6, 2, 3, 4], of: Self.byteLevel) == ["a", "", "é", " ", "", "", "😀", ""])
    }

    @Test("bytes that are no character become U+FFFD as soon as that is certain")
    func brokenCharacters() throws {
        #expect(try Self.chunks([0, 5, 2, 3], of: Self.byteLevel) == ["", "\u{FFFD}a", "", "", "\u{FFFD}"])
        #expect(try Self.chunks([1, 1], of: Self.byteLevel) == ["\u{FFFD}", "\u{FFFD}", ""])
    }

    @Test("a token that isn't in the alphabet of bytes is taken as it is")
    func foreignToken() throws {
        #expect(try Self.chunks([7, 5], of: Self.byteLevel) == ["日", "a", ""])
    }

    private static let llama = TokenizerFile(
        decoder: #"""
            {"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},\#
            {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}
            """#,
        vocabulary: #"{"▁a":0,"b▁":1,"<0xC3>":2,"<0xA9>":3,"▁":4,"<0x0A>":5}"#,
        merges: "[]"
    )

    @Test("the first space is stripped, and runs of bytes come when they have ended")
    func llamaDecoder() throws {
        #expect(try Self.chunks([0, 1, 2, 3, 0, 5], of: Self.llama) == ["a", "b ", "", "", "é a", "", "\n"])
        #expect(try Self.chunks([4, 4, 4], of: Self.llama) == ["", " ", " ", ""])
        #expect(try Self.chunks([2, 3, 2, 0], of: Self.llama) == ["", "", "", "\u{FFFD}\u{FFFD}\u{FFFD} a", ""])
    }

    @Test("a stream begins anew when it has finished")
    func reuse() throws {
        var stream = try Self.llama.tokenizer.makeTextStream()
        for _ in 0..<2 {
            #expect(stream.append(0) == "a")
            #expect(stream.append(2) == "")
            #expect(stream.finish() == "\u{FFFD}")
        }
    }

    @Test("an end that may be stripped, or a part of a pattern, is held back")
    func heldBack() throws {
        let file = TokenizerFile(
            decoder: #"""
                {"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Replace","pattern":{"String":"aab"},"content":"X"},\#
                {"type":"Strip","content":" ","start":0,"stop":2}]}
                """#,
            vocabulary: #"{"a":0,"b":1," ":2,"é":3}"#,
            merges: "[]"
        )
        #expect(try Self.chunks([0, 0, 0, 1, 1], of: file).joined() == "aXb")
        #expect(try Self.chunks([1, 2, 2, 2], of: file).joined() == "b ")
        #expect(try Self.chunks([2, 1, 2, 3], of: file).joined() == " b é")
        for tokens in [[0, 0, 1, 2, 2, 2, 3, 0, 0], [2], [2, 2, 2, 2], [3, 0, 0, 0, 0, 1]] as [[Int32]] {
            #expect(bytes(try Self.chunks(tokens, of: file).joined()) == bytes(try file.tokenizer.decode(tokens)))
        }
    }

    @Test("characters stay whole between steps")
    func wholeCharacters() throws {
        let file = TokenizerFile(
            decoder: #"""
                {"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Replace","pattern":{"String":"▁▁"},"content":"é"},\#
                {"type":"Strip","content":"▂","start":1,"stop":1},{"type":"Metaspace","replacement":"▁"}]}
                """#,
            vocabulary: #"{"▁":0,"▂":1,"😀":2,"a":3}"#,
            merges: "[]"
        )
        let tokenizer = try file.tokenizer
        var generator = SplitMix64(seed: 1)
        for _ in 0..<200 {
            let tokens = (0..<Int.random(in: 0...6, using: &generator)).map { _ in
                Int32.random(in: 0...3, using: &generator)
            }
            let text = tokens.map { ["▁", "▂", "😀", "a"][Int($0)] }.joined()
            // What the steps do to the whole text at once.
            var expected = text.replacing("▁▁", with: "é")[...]
            if expected.hasPrefix("▂") { expected = expected.dropFirst() }
            if expected.hasSuffix("▂") { expected = expected.dropLast() }
            let whole = String(expected).replacing("▁", with: "")
            #expect(tokenizer.decode(tokens) == whole, "\(text)")
            #expect(try Self.chunks(tokens, of: file).joined() == whole, "\(text)")
        }
    }

    @Test("strips longer than the token leave nothing", arguments: [0, 1, 2, 3])
    func longStrip(count: Int) throws {
        let file = TokenizerFile(
            decoder: #"{"type":"Strip","content":"é","start":2,"stop":2}"#,
            vocabulary: #"{"é":1,"éé":2,"ééé":3,"éaé":4,"":0}"#,
            merges: "[]"
        )
        #expect(try file.tokenizer.decode([Int32(count)]) == "")
        #expect(try file.tokenizer.decode([4]) == "a")
    }

    @Test(
        "the incomplete end of a text is told from a broken one",
        arguments: [
            ([], 0), ([0x61], 0), ([0xC3], 1), ([0xC3, 0xA9], 0), ([0xE2], 1), ([0xE2, 0x82], 2),
            ([0xF0, 0x9F, 0x98], 3),
            ([0xF0, 0x9F, 0x98, 0x80], 0), ([0x80], 0), ([0xFF], 0), ([0xC1], 0), ([0xE0, 0x80], 0), ([0xED, 0xA0], 0),
            ([0xF4, 0x90], 0), ([0xF5], 0), ([0x61, 0x80, 0x80, 0x80, 0x80], 0), ([0xF0, 0x8F], 0), ([0xED, 0x9F], 2),
        ] as [([UInt8], Int)]
    )
    func incompleteEnd(bytes: [UInt8], count: Int) {
        #expect(TokenDecoderState.incompleteCount(of: bytes) == count)
    }
}
