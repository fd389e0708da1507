import ByteStorage
import TextTokenization

/// A small `tokenizer.json` to make tests from: fields are JSON, and each can be replaced.
struct TokenizerFile {
    var addedTokens = "[]"
    var normalizer = "null"
    var preTokenizer = "null"
    var postProcessor = "null"
    var decoder = #"{"type":"Fuse"}"#
    var vocabulary = #"{"a":0,"b":1,"c":2,"ab":3,"abc":4,"bc":5," ":6}"#
    var merges = #"[["a","b"],["b","c"],["ab","c"]]"#
    /// More members of `model`, each ending in a comma.
    var modelFields = ""
    /// More members of the file, each ending in a comma.
    var fields = ""

    var json: String {
        #"""
        {"version":"1.0",\#(fields)"added_tokens":\#(addedTokens),"normalizer":\#(normalizer),\#
        "pre_tokenizer":\#(preTokenizer),"post_processor":\#(postProcessor),"decoder":\#(decoder),\#
        "model":{"type":"BPE",\#(modelFields)"vocab":\#(vocabulary),"merges":\#(merges)}}
        """#
    }

    var tokenizer: Tokenizer { get throws { try Tokenizer(SharedBytes(Array(json.utf8))) } }

    /// The error that the file must be refused with.
    var refusal: TokenizerError? {
        do {
            _ = try Tokenizer(SharedBytes(Array(json.utf8)))
            return nil
        } catch {
            return error
        }
    }

    static func addedToken(_ id: Int, _ content: String, flags: String = "") -> String {
        var fields = ["single_word": "false", "lstrip": "false", "rstrip": "false", "normalized": "false"]
        fields["special"] = "true"
        for flag in flags.split(separator: " ") {
            let isOff = flag.hasPrefix("-")
            fields[String(isOff ? flag.dropFirst() : flag)] = isOff ? "false" : "true"
        }
        let members = fields.sorted { $0.key < $1.key }.map { #""\#($0.key)":\#($0.value)"# }.joined(separator: ",")
        return #"{"id":\#(id),"content":"\#(content)",\#(members)}"#
    }
}

/// Texts compared by their bytes: `==` of strings would let canonical equivalents pass.
func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }
