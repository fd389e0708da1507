import ByteStorage
import LlamaDecoder
import TestSupport
import Testing
import TextTokenization

@Suite struct ChatFormTests {
    /// A tokenizer with some special tokens.
    private static func tokenizer(_ tokens: [String]) throws -> Tokenizer {
        let added = tokens.enumerated().map { index, token in
            #"{"id":\#(index + 1),"content":"\#(token)","special":true,"single_word":false,"lstrip":false,"rstrip":false,"#
                + #""normalized":false}"#
        }
        let json =
            #"{"added_tokens":[\#(added.joined(separator: ","))],"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}"#
        return try Tokenizer(SharedBytes(Array(json.utf8)))
    }

    @Test(arguments: [
        (ChatForm.chatML, ["<|im_start|>", "<|im_end|>"], "{{'<|im_start|>' + role}}{{'<|im_end|>'}}"),
        (
            .llama3, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
            "<|start_header_id|>{{role}}<|end_header_id|>{{text}}<|eot_id|>"
        ),
        (.gemma, ["<start_of_turn>", "<end_of_turn>"], "{{'<start_of_turn>' + role}}<end_of_turn>"),
        (.mistral, [], "{{ '[INST] ' + text + ' [/INST]' }}"),
    ])
    func formsAreKnownByTheirMarkers(form: ChatForm, tokens: [String], template: String) throws {
        #expect(ChatForm(template: template, tokenizer: try Self.tokenizer(tokens)) == form)
        #expect(form.beginning.isEmpty == false && form.turn.isEmpty == false)
        if !tokens.isEmpty {
            // The template of one model with the tokenizer of another.
            #expect(ChatForm(template: template, tokenizer: try Self.tokenizer([])) == .plain)
        }
    }

    @Test(arguments: [nil, "", "{{ '<|user|>' }}", "{{ '<|im_start|>' }}"])
    func otherTemplatesArePlain(template: String?) throws {
        #expect(ChatForm(template: template, tokenizer: try Self.tokenizer(["<|im_start|>", "<|im_end|>"])) == .plain)
    }

    /// A template is in a file of its own, or in the tokenizer's settings, alone or among several.
    @Test(arguments: [
        ("chat_template.jinja", "[INST] {{x}} [/INST]", ChatForm.mistral),
        ("tokenizer_config.json", #"{"chat_template":"[INST] [/INST]"}"#, .mistral),
        (
            "tokenizer_config.json",
            #"{"chat_template":[{"name":"tools","template":"x"},{"name":"default","template":"[INST] [/INST]"}]}"#,
            .mistral
        ),
        ("tokenizer_config.json", #"{"chat_template":"other"}"#, .plain), ("tokenizer_config.json", "{}", .plain),
    ])
    func modelsSayTheirForm(name: String, content: String, form: ChatForm) throws {
        let copy = try ModelFolderCopy(of: "llama-3")
        try copy.write(content, to: name)
        #expect(try LlamaModel(path: copy.path).chatForm() == form)
    }

    @Test(arguments: [("[INST] [/INST]", ChatForm.mistral), ("other", .plain), (nil, .plain)] as [(String?, ChatForm)])
    func filesSayTheirForm(template: String?, form: ChatForm) throws {
        let folder = try TemporaryFolder()
        var builder = GGUFBuilder.model()
        if let template { builder["tokenizer.chat_template"] = .string(template) }
        try builder.write(to: folder.file("model.gguf"))
        #expect(try LlamaModel(path: folder.file("model.gguf")).chatForm() == form)
    }

    @Test(arguments: [#"{"chat_template":3}"#, #"{"chat_template":[3]}"#, #"{"chat_template":[{"name":"default"}]}"#])
    func damagedTemplatesAreErrors(settings: String) throws {
        let copy = try ModelFolderCopy(of: "llama-3")
        try copy.write(settings, to: "tokenizer_config.json")
        let model = try LlamaModel(path: copy.path)
        let error = #expect(throws: ModelError.self) { try model.chatForm() }
        #expect(error?.code == .damaged)
        #expect(error?.path?.hasSuffix("tokenizer_config.json") == true)
    }
}
