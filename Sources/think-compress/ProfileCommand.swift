internal import ArgumentParser
internal import LlamaDecoder
internal import ThinkCompress

struct ProfileCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "profile",
        abstract: "Measure a model's query profile, for caches that come without queries.",
        discussion: """
            The mean squared query of every layer, KV head and channel, over all tokens of the texts. ThinK chooses key \
            channels by it where a cache has no queries of its own, or in place of a prompt's last ones. Who may not read \
            the texts may not read the profile either.

            Example:
              think-compress profile --model DIR --text a.txt --text b.txt -o model.q2
              think-compress snapshot dump.safetensors --profile model.q2 \\
                -o prompt.tkv --codec "think(keys=0.4)"

            A file called '-' is standard input, or standard output for -o.
            """
    )

    @Option(help: "The model: a directory with config.json, *.safetensors and tokenizer.json, or a GGUF file.")
    var model: String

    @Option(parsing: .upToNextOption, help: "Texts such as the model will read.")
    var text: [String]

    @Option(name: .shortAndLong, help: "The profile to write.")
    var output: String

    @Option(
        parsing: .unconditional,
        help: "Tokens that are read at a time; by default as many as the model has positions."
    )
    var context: Int?

    @Flag(help: "Replace the output if it exists.")
    var force = false

    @Flag(help: "Print what was measured as JSON.")
    var json = false

    func validate() throws {
        if let context { try CountOption.check(context, "--context") }
        try StandardStreams.check(texts: text, output: output, json: json)
    }

    private struct Report: Encodable {
        let file: String
        let texts: Int
        let tokens: Int
        let layers: Int
        let kvHeads: Int
        let headDim: Int
    }

    func run() async throws {
        let output = try OutputFile(
            self.output,
            replacingExisting: force,
            inputs: text + ModelInput.files(of: model)
        )
        let texts = try text.map { try InputFile($0) }
        var contents: [String] = []
        for file in texts { contents.append(try await ModelInput.text(of: file)) }
        let opened = try LlamaModel(path: model)
        let decoder = TransformerDecoder(model: opened)
        let positions = opened.configuration.maximumPositions
        let length = min(context ?? positions, positions)
        var pieces: [[Int32]] = []
        for (file, content) in zip(texts, contents) {
            let tokens = try await ModelInput.about(file.name) { try opened.tokens(of: content) }
            pieces += stride(from: 0, to: tokens.count, by: length).map {
                Array(tokens[$0..<min($0 + length, tokens.count)])
            }
        }
        let total = pieces.reduce(0) { $0 + $1.count }
        let progress = Console.progress("reading", of: total, "tokens")
        var sums: [[Double]] = []
        var done = 0
        for piece in pieces {
            let range = Double(done) / Double(total)...Double(done + piece.count) / Double(total)
            let profile = try await about(model) {
                try await decoder.queryProfile(piece, progress: progress?.part(range))
            }
            if sums.isEmpty { sums = profile.map { $0.map { _ in 0 } } }
            for layer in profile.indices {
                for channel in profile[layer].indices {
                    sums[layer][channel] += profile[layer][channel] * Double(piece.count)
                }
            }
            done += piece.count
        }
        let geometry = opened.configuration.geometry
        try QueryProfile.write(
            sums.map { layer in layer.map { Float($0 / Double(total)) } },
            geometry: geometry,
            metadata: try ModelInput.metadata(of: opened),
            to: output.path,
            replacingExisting: output.replacesExisting,
            access: FileAccess(inputs: texts.map(\.path))
        )
        try output.finish()
        let report = Report(
            file: output.name,
            texts: text.count,
            tokens: total,
            layers: geometry.layers.count,
            kvHeads: opened.configuration.attention.kvHeads,
            headDim: opened.configuration.attention.keyDimension
        )
        if json {
            try Console.printJSON(report)
        } else {
            try output.print(
                "\(output.name): mean squared queries of \(total.grouped) tokens, \(report.layers) layers, "
                    + "\(report.kvHeads) KV heads of dimension \(report.headDim)"
            )
        }
    }
}
