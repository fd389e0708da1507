import ByteStorage
import Foundation
import TestSupport
import Testing
import TextTokenization

/// Files that can't be used are refused with the field's name and what to do.
@Suite struct RefusalTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let file: TokenizerFile
        let code: TokenizerError.Code
        let field: String?
        let message: String

        var testDescription: String { "\(field ?? "the file") \(message)" }

        init(
            _ field: String?,
            _ message: String,
            _ code: TokenizerError.Code = .unsupported,
            _ change: (inout TokenizerFile) -> Void
        ) {
            var file = TokenizerFile()
            change(&file)
            self.file = file
            self.code = code
            self.field = field
            self.message = message
        }
    }

    private static func check(_ test: Case) {
        let error = test.file.refusal
        #expect(error?.code == test.code, "\(error?.description ?? "read")")
        #expect(error?.field == test.field, "\(error?.description ?? "read")")
        #expect(error?.message.contains(test.message) == true, "\(error?.description ?? "read")")
    }

    private static func unsupportedTypes(
        _ names: [String],
        _ field: String,
        _ set: (inout TokenizerFile, String) -> Void
    ) -> [Case] {
        names.map { name in
            Case("\(field).type", "\"\(name)\" is not supported") { set(&$0, #"{"type":"\#(name)"}"#) }
        }
    }

    @Test(
        "types that aren't supported are refused by name",
        arguments: unsupportedTypes(
            ["BertNormalizer", "StripAccents", "Nmt", "Precompiled", "ByteLevel", "SomethingNew"],
            "normalizer"
        ) { $0.normalizer = $1 }
            + unsupportedTypes(
                [
                    "BertPreTokenizer", "CharDelimiterSplit", "Whitespace", "WhitespaceSplit", "Punctuation",
                    "UnicodeScripts",
                    "FixedLength",
                ],
                "pre_tokenizer"
            ) { $0.preTokenizer = $1 }
            + unsupportedTypes(["BertProcessing", "RobertaProcessing"], "post_processor") { $0.postProcessor = $1 }
            + unsupportedTypes(["BPEDecoder", "WordPiece", "CTC"], "decoder") { $0.decoder = $1 }
            + [
                Case("pre_tokenizer.pretokenizers[1].pretokenizers[0].type", "\"Whitespace\"") {
                    $0.preTokenizer =
                        #"{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},"#
                        + #"{"type":"Sequence","pretokenizers":[{"type":"Whitespace"}]}]}"#
                }
            ]
    )
    func types(_ test: Case) { Self.check(test) }

    @Test("models other than BPE are refused by name", arguments: ["Unigram", "WordPiece", "WordLevel"])
    func models(name: String) {
        var file = TokenizerFile()
        file.modelFields = #""type":"\#(name)","#
        let json = file.json.replacing(#""type":"BPE","#, with: "")
        let error = #expect(throws: TokenizerError.self) { try Tokenizer(SharedBytes(Array(json.utf8))) }
        #expect(error?.code == .unsupported)
        #expect(error?.field == "model.type")
        #expect(error?.message.contains("\"\(name)\" is not supported") == true)
    }

    @Test(
        "settings that aren't supported are refused",
        arguments: [
            Case("model.dropout", "dropout") { $0.modelFields = #""dropout":0.1,"# },
            Case("model.continuing_subword_prefix", "not supported") {
                $0.modelFields = #""continuing_subword_prefix":"@@","#
            },
            Case("model.end_of_word_suffix", "not supported") { $0.modelFields = #""end_of_word_suffix":"</w>","# },
            Case("normalizer.pattern.String", "empty pattern") {
                $0.normalizer = #"{"type":"Replace","pattern":{"String":""},"content":"x"}"#
            },
            Case("pre_tokenizer.pattern.Regex", "not supported by ICU") { $0.preTokenizer = split(#"(a"#) },
            Case("pre_tokenizer.pattern.Regex", "named groups") { $0.preTokenizer = split(#"(?<n>a)"#) },
            Case("pre_tokenizer.pattern.Regex", "too long") {
                $0.preTokenizer = split(String(repeating: "a", count: 2001))
            },
            Case("pre_tokenizer.pattern.Regex", "too long") {
                $0.preTokenizer = split(String(repeating: #"\b"#, count: 1000))
            },
            Case("pre_tokenizer.pattern.Regex", "[: :]") { $0.preTokenizer = split(#"[[:alpha:]]"#) },
            Case("pre_tokenizer.behavior", "must be one of Removed") {
                $0.preTokenizer = #"{"type":"Split","pattern":{"String":"a"},"behavior":"Sideways","invert":false}"#
            },
            Case("pre_tokenizer.prepend_scheme", "first, never or always") {
                $0.preTokenizer = #"{"type":"Metaspace","replacement":"_","prepend_scheme":"last"}"#
            },
            Case("post_processor.processors[1]", "second template") {
                let template =
                    #"{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}}],"special_tokens":{}}"#
                $0.postProcessor = #"{"type":"Sequence","processors":[\#(template),\#(template)]}"#
            },
            Case("post_processor.single", "must have the sequence A") {
                $0.postProcessor = #"{"type":"TemplateProcessing","single":[],"special_tokens":{}}"#
            },
            Case("post_processor.single[0].Sequence.id", "sequence A once") {
                $0.postProcessor =
                    #"{"type":"TemplateProcessing","single":[{"Sequence":{"id":"B","type_id":0}}],"special_tokens":{}}"#
            },
            Case("decoder.pattern", "a Regex is not supported in a decoder") {
                $0.decoder = #"{"type":"Replace","pattern":{"Regex":"a"},"content":"x"}"#
            },
            Case("decoder", "times as long") {
                let step = #"{"type":"Replace","pattern":{"String":"a"},"content":"aaaaaaaa"}"#
                $0.decoder =
                    #"{"type":"Sequence","decoders":[\#(Array(repeating: step, count: 5).joined(separator: ","))]}"#
            },
            Case("pre_tokenizer", "more than 64 steps") {
                let step = #"{"type":"Digits","individual_digits":true}"#
                $0.preTokenizer =
                    #"{"type":"Sequence","pretokenizers":[\#(Array(repeating: step, count: 65).joined(separator: ","))]}"#
            },
            Case("added_tokens[0]", "129 bytes") {
                $0.addedTokens = "[\(TokenizerFile.addedToken(7, String(repeating: "x", count: 129)))]"
            },
        ]
    )
    func settings(_ test: Case) { Self.check(test) }

    private static func split(_ pattern: String) -> String {
        let escaped = pattern.replacing("\\", with: "\\\\")
        return #"{"type":"Split","pattern":{"Regex":"\#(escaped)"},"behavior":"Isolated","invert":false}"#
    }

    @Test(
        "files that contradict themselves are refused",
        arguments: [
            Case("model.vocab.a", "is there twice", .damaged) { $0.vocabulary = #"{"a":0,"b":1,"a":2}"# },
            Case("model.vocab.c", "has the id 1, as another", .damaged) { $0.vocabulary = #"{"a":0,"b":1,"c":1}"# },
            Case("model.vocab.a", "whole number", .damaged) { $0.vocabulary = #"{"a":-1}"# },
            Case("model.vocab.a", "whole number", .damaged) { $0.vocabulary = #"{"a":2147483648}"# },
            Case("model.vocab.a", "must be a number", .damaged) { $0.vocabulary = #"{"a":"0"}"# },
            Case("model.vocab", "must be an object", .damaged) { $0.vocabulary = "[]" },
            Case("model.merges", "must be a list", .damaged) { $0.merges = "{}" },
            Case("model.merges[1]", "merge 1 needs the token \"cb\"", .damaged) {
                $0.merges = #"[["a","b"],["c","b"]]"#
            },
            Case("model.merges[0]", "needs the token \"x\"", .damaged) { $0.merges = #"["x b"]"# },
            Case("model.merges[0]", "a merge must be", .damaged) { $0.merges = #"["ab"]"# },
            Case("model.merges[0]", "a merge must be", .damaged) { $0.merges = #"["a b c"]"# },
            Case("model.merges[0]", "a merge must be", .damaged) { $0.merges = #"[["a","b","c"]]"# },
            Case("model.merges[0]", "a merge must be", .damaged) { $0.merges = #"[["a",["b"]]]"# },
            Case("model.merges[0]", "a merge must be", .damaged) { $0.merges = "[1]" },
            Case("model.fuse_unk", "true or false", .damaged) { $0.modelFields = #""fuse_unk":1,"# },
            Case("added_tokens[0].id", "doubt", .damaged) {
                $0.addedTokens = "[\(TokenizerFile.addedToken(9, "<s>"))]"
            },
            Case("added_tokens[0].id", "doubt", .damaged) { $0.addedTokens = "[\(TokenizerFile.addedToken(7, "ab"))]" },
            Case("added_tokens[1]", "twice", .damaged) {
                $0.addedTokens = "[\(TokenizerFile.addedToken(0, "a")),\(TokenizerFile.addedToken(0, "a"))]"
            },
            Case("added_tokens[1]", "twice", .damaged) {
                $0.normalizer = #"{"type":"Lowercase"}"#
                $0.addedTokens =
                    "[\(TokenizerFile.addedToken(7, "X", flags: "normalized")),\(TokenizerFile.addedToken(8, "x", flags: "normalized"))]"
            },
            Case("added_tokens[0]", "has no \"lstrip\"", .damaged) {
                $0.addedTokens = #"[{"id":7,"content":"x","single_word":false}]"#
            },
            Case("added_tokens", "must be a list", .damaged) { $0.addedTokens = "{}" },
            Case("pre_tokenizer", "has no \"type\"", .damaged) { $0.preTokenizer = "{}" },
            Case("pre_tokenizer.replacement", "one character", .damaged) {
                $0.preTokenizer = #"{"type":"Metaspace","replacement":"ab"}"#
            },
            Case("pre_tokenizer.add_prefix_space", "contradicts", .damaged) {
                $0.preTokenizer =
                    #"{"type":"Metaspace","replacement":"_","prepend_scheme":"always","add_prefix_space":false}"#
            },
            Case("post_processor", "adds the token 77", .damaged) {
                $0.postProcessor =
                    #"{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x","type_id":0}},"#
                    + #"{"Sequence":{"id":"A","type_id":0}}],"special_tokens":{"x":{"id":"x","ids":[77],"tokens":["x"]}}}"#
            },
            Case("post_processor.special_tokens", "has no \"x\"", .damaged) {
                $0.postProcessor =
                    #"{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x","type_id":0}}],"special_tokens":{}}"#
            },
            Case("pre_tokenizer.type", "is there twice", .damaged) {
                $0.preTokenizer = #"{"type":"ByteLevel","type":"Digits","individual_digits":true}"#
            },
            Case("model", "is there twice", .damaged) { $0.fields = #""model":{},"# },
            Case("decoder.start", "whole number", .damaged) {
                $0.decoder = #"{"type":"Strip","content":" ","start":-1,"stop":0}"#
            },
        ]
    )
    func contradictions(_ test: Case) { Self.check(test) }

    @Test(
        "a template that adds too much is refused before it is read",
        arguments: [(1025, 1), (1, 1025), (1024, 25_000), (100_000, 0)]
    )
    func longTemplates(pieces: Int, ids: Int) {
        let piece = #"{"SpecialToken":{"id":"x","type_id":0}},"#
        let numbers = Array(repeating: "0", count: ids).joined(separator: ",")
        // Names before the one that is asked for, which must not be looked through for each piece.
        let others = (0..<10_000).map { #""o\#($0)":1,"# }.joined()
        let file = TokenizerFile(
            postProcessor: #"""
                {"type":"TemplateProcessing","single":[\#(String(repeating: piece, count: pieces))\#
                {"Sequence":{"id":"A","type_id":0}}],\#
                "special_tokens":{\#(others)"x":{"id":"x","ids":[\#(numbers)],"tokens":["x"]}}}
                """#
        )
        var error: TokenizerError?
        let bytes = Array(file.json.utf8)
        let time = ThreadTime.spent {
            error = #expect(throws: TokenizerError.self) { try Tokenizer(SharedBytes(bytes)) }
        }
        #expect(error?.code == .unsupported)
        #expect(error?.message == "adds more than 1024 tokens; shorten it")
        #expect(time < .seconds(2), "\(time)")
    }

    @Test("a normalizer that makes an added token long on the way is refused before it is applied to many")
    func longNormalForms() {
        let step = { (from: String, to: String) in
            #"{"type":"Replace","pattern":{"String":"\#(from)"},"content":"\#(to)"}"#
        }
        let long = String(repeating: "y", count: 100_000)
        let tokens = (0..<1000).map { TokenizerFile.addedToken(7 + $0, "x\($0)", flags: "normalized") }
        let file = TokenizerFile(
            addedTokens: "[\(tokens.joined(separator: ","))]",
            normalizer: #"{"type":"Sequence","normalizers":[\#(step("x", long)),\#(step(long, "x"))]}"#
        )
        #expect(file.refusal?.field == "added_tokens[0]")
        #expect(file.refusal?.message.contains("longer than 16384 bytes") == true)
    }

    @Test("a file of another version is refused")
    func version() {
        let json = TokenizerFile().json.replacing(#""version":"1.0""#, with: #""version":"2.0""#)
        let error = #expect(throws: TokenizerError.self) { try Tokenizer(SharedBytes(Array(json.utf8))) }
        #expect(error?.field == "version")
        #expect(error?.code == .unsupported)
    }

    @Test("a file without a model is refused", arguments: ["{}", "[]", "1", #"{"model":null}"#, #"{"model":{}}"#])
    func noModel(json: String) {
        let error = #expect(throws: TokenizerError.self) { try Tokenizer(SharedBytes(Array(json.utf8))) }
        #expect(error?.code == .damaged)
    }

    @Test("an error tells the field, the fault, and the byte")
    func description() {
        let error = TokenizerFile(preTokenizer: #"{"type":"Whitespace"}"#).refusal
        let text = error?.description ?? ""
        #expect(text.hasPrefix("pre_tokenizer.type: \"Whitespace\" is not supported; use a tokenizer with Split,"))
        #expect(text.hasSuffix("(at byte \(error?.offset ?? 0))"))
    }
}
