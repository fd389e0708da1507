import ByteStorage
import TestSupport
import Testing
import TextTokenization
import ThinkCompress

/// Damaged files give an error or a tokenizer that works, never a trap.
@Suite struct DamageTests {
    private static let texts = ["", "Hello, wörld! 12 <s>\n\n x", "e\u{301}\0\u{10FFFF}▁ <|endoftext|>  the-final--12"]

    /// A file that uses nearly everything.
    private static let file = TokenizerFile(
        addedTokens:
            "[\(TokenizerFile.addedToken(0, "<s>", flags: "lstrip")),\(TokenizerFile.addedToken(9, "h", flags: "normalized rstrip single_word -special"))]",
        normalizer: #"""
            {"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Lowercase"},{"type":"Prepend","prepend":"▁"},\#
            {"type":"Replace","pattern":{"String":" "},"content":"▁"},{"type":"Strip","strip_left":true,"strip_right":true},\#
            {"type":"Replace","pattern":{"Regex":"x+\\s*"},"content":"b"}]}
            """#,
        preTokenizer: #"""
            {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\p{N}{1,3}|[^\\s]+"},\#
            "behavior":"MergedWithNext","invert":false},{"type":"Digits","individual_digits":true},\#
            {"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true},\#
            {"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}]}
            """#,
        postProcessor: #"""
            {"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],\#
            "pair":[],"special_tokens":{"<s>":{"id":"<s>","ids":[0],"tokens":["<s>"]}}}
            """#,
        decoder: #"""
            {"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},\#
            {"type":"ByteLevel"},{"type":"Metaspace","replacement":"_"},{"type":"Strip","content":" ","start":1,"stop":1}]}
            """#,
        vocabulary: #"{"<s>":0,"a":1,"l":2,"ll":3,"Ġ":4,"Ã":5,"<0xC3>":6,"d":7,"Ġd":8}"#,
        merges: #"[["l","l"],["Ġ","d"]]"#,
        modelFields: #""unk_token":"<s>","fuse_unk":true,"byte_fallback":true,"ignore_merges":true,"#
    )

    @Test("the file itself is sound")
    func soundFile() throws {
        #expect(Self.file.refusal == nil)
        #expect(try Self.file.tokenizer.encode("hallo").first == 0)
    }

    /// Uses a tokenizer for all that it can do; false if its file is refused.
    private static func use(_ bytes: [UInt8]) -> Bool {
        guard let tokenizer = try? Tokenizer(SharedBytes(bytes)) else { return false }
        tokenizer.expectSoundTokens(of: texts)
        return true
    }

    @Test("files with changed bytes", arguments: 1...8 as ClosedRange<UInt64>)
    func changedBytes(seed: UInt64) {
        var generator = SplitMix64(seed: seed)
        let sound = Array(Self.file.json.utf8)
        let common = Array(#"0123456789"\[]{}:,-+.*?()aAbdstx▁<>"#.utf8)
        var used = 0
        for _ in 0..<400 {
            var file = sound
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                let place = Int.random(in: 0..<file.count, using: &generator)
                switch Int.random(in: 0..<5, using: &generator) {
                case 0: file[place] = UInt8.random(in: 0...255, using: &generator)
                case 1: file.remove(at: place)
                case 2: file.insert(common.randomElement(using: &generator) ?? 0, at: place)
                case 3:
                    let part = file[place...].prefix(20)
                    file.insert(contentsOf: part, at: Int.random(in: 0...file.count, using: &generator))
                default: file[place] = common.randomElement(using: &generator) ?? 0
                }
            }
            if Self.use(file) { used += 1 }
        }
        #expect((1..<400).contains(used))
    }

    @Test("files cut anywhere are refused")
    func everyTruncation() {
        let sound = Array(Self.file.json.utf8)
        for count in sound.indices {
            #expect(throws: TokenizerError.self) { try Tokenizer(SharedBytes(Array(sound[..<count]))) }
        }
    }
}
