internal import ArgumentParser
internal import LlamaDecoder
internal import ThinkCompress

/// For checking the decoder against another implementation: see Tools/check-logits.
struct LogitsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "logits",
        abstract: "Write a model's logits after every token of a text.",
        shouldDisplay: false
    )

    @Option(help: "The model: a directory with config.json, *.safetensors and tokenizer.json, or a GGUF file.")
    var model: String

    @Option(help: "The text's file.")
    var text: String

    @Option(help: "Tokens of the text to compute.")
    var maxTokens: Int = 256

    @Option(name: .shortAndLong, help: "The file to write: tokens I32 [T], logits F32 [T, vocabulary].")
    var output: String

    @Flag(help: "Replace the output if it exists.")
    var force = false

    func validate() throws {
        try CountOption.check(maxTokens, "--max-tokens")
        try StandardStreams.check(texts: [text], output: output)
    }

    func run() async throws {
        let output = try OutputFile(
            self.output,
            replacingExisting: force,
            inputs: [text] + ModelInput.files(of: model)
        )
        let text = try await ModelInput.text(of: try InputFile(text))
        let opened = try LlamaModel(path: model)
        let decoder = TransformerDecoder(model: opened)
        let tokens = Array(try opened.tokens(of: text).prefix(maxTokens))
        let logits = try await decoder.logits(tokens)
        let vocabulary = opened.configuration.vocabularySize
        let writer = try SafetensorsWriter(
            path: output.path,
            replacingExisting: output.replacesExisting,
            tensors: [
                .init(name: "tokens", elementType: "I32", shape: [tokens.count], byteCount: tokens.count * 4),
                .init(
                    name: "logits",
                    elementType: "F32",
                    shape: [tokens.count, vocabulary],
                    byteCount: logits.count * 4
                ),
            ],
            metadata: [:]
        )
        try writer.write(SharedBytes(words: tokens.map(UInt32.init(bitPattern:))), to: "tokens")
        try writer.write(SharedBytes(words: logits.map(\.bitPattern)), to: "logits")
        try writer.commit()
        try output.finish()
    }
}
