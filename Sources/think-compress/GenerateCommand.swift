internal import ArgumentParser
internal import ThinkCompress

struct GenerateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "generate",
        abstract: "Continue a text with a model, from a snapshot of its beginning.",
        discussion: """
            The prompt is the text of --prompt-file followed by that of --prompt. As far as it begins like the \
            snapshot's, the snapshot is used and not computed; if they share just a prefix, the snapshot is cut there; \
            if that is shorter than a block of 32 tokens and than the snapshot, it is not used.

            Example:
              think-compress snapshot --model DIR --prompt-file long.txt -o p.tkv \\
                --codec "think(keys=0.4)+kivi(bits=2)"
              think-compress generate --model DIR --snapshot p.tkv \\
                --prompt-file long.txt --prompt " What is the number?"
            """
    )

    @Option(help: "The model: a directory with config.json, *.safetensors and tokenizer.json.")
    var model: String

    @Option(help: "A snapshot that the same model made of a text that begins alike.")
    var snapshot: String?

    @Option(help: "The prompt.")
    var prompt: String?

    @Option(help: "A file whose text comes before that of --prompt.")
    var promptFile: String?

    @Option(help: "How to compress the prompt's cache where there is no snapshot.")
    var codec = "f16"

    @Option(help: "New tokens at the most.")
    var maxTokens = 128

    @Option(help: "0 takes the likeliest token always; 1 draws by the model's own probabilities.")
    var temperature = 0.0

    @Option(help: "Draw from the likeliest tokens that have this probability together.")
    var topP = 1.0

    @Option(help: "Determines what is drawn.")
    var seed: UInt64 = 0

    @Flag(help: "Print text and figures as JSON.")
    var json = false

    func validate() throws {
        guard prompt != nil || promptFile != nil else { throw ValidationError("pass --prompt or --prompt-file") }
        try CountOption.check(maxTokens, "--max-tokens")
        guard temperature >= 0, temperature.isFinite else {
            throw ValidationError("--temperature \(temperature): must be 0 or more")
        }
        guard topP > 0, topP <= 1 else { throw ValidationError("--top-p \(topP): must be above 0 and at most 1") }
        _ = try RecipeOption.recipe(codec, option: "--codec")
    }

    private struct Report: Encodable {
        let text: String
        let promptTokens: Int
        let reusedTokens: Int
        let newTokens: Int
        /// Seconds to open the model, and to read its weights once where a snapshot must be told from others'.
        let openingTime: Double
        /// Seconds from the prompt, with the model open, to the first token.
        let timeToFirstToken: Double
        let tokensPerSecond: Double?
        let cacheBytes: Int
        let peakMemoryBytes: Int
    }

    func run() async throws {
        let recipe = try RecipeOption.recipe(codec, option: "--codec")
        let text = try ModelInput.prompt(file: promptFile, text: prompt)
        let opening = ContinuousClock.now
        let opened = try LlamaModel(path: model)
        let decoder = TransformerDecoder(model: opened)
        // Reads every byte of the weights, so after all that can be refused sooner.
        let metadata = try await readMetadata(of: opened)
        let generator = TextGenerator(
            decoder: decoder,
            sampler: Sampler(temperature: temperature, topP: topP, seed: seed),
            maximumTokens: maxTokens
        )
        let start = ContinuousClock.now
        let tokens = try await ModelInput.about(promptFile ?? "--prompt") {
            let tokens = try opened.tokens(of: text)
            try decoder.check(tokens)
            return tokens
        }
        let cache = try await openSnapshot(for: opened, metadata: metadata)
        let reused = cache.map { TextGenerator.reusableTokens(of: $0, for: tokens) } ?? 0
        // From here on one thread works, and those that wake find another processor.
        decoder.workers.wake()
        var stream = opened.tokenizer.makeTextStream()
        var written = ""
        func write(_ piece: String) throws {
            written += piece
            if !json { try Console.write(piece) }
        }
        let result = try await ModelInput.about(model) {
            try await generator.generate(
                tokens,
                from: cache,
                recipe: recipe,
                since: start,
                progress: Console.progress("reading the prompt", of: tokens.count - reused, "tokens")
            ) { token in
                try write(stream.append(token))
            }
        }
        try write(stream.finish())
        let report = Report(
            text: written,
            promptTokens: tokens.count,
            reusedTokens: result.reusedTokens,
            newTokens: result.tokens.count,
            openingTime: (start - opening).seconds,
            timeToFirstToken: result.timeToFirstToken.seconds,
            tokensPerSecond: result.tokensPerSecond,
            cacheBytes: result.cache.blockByteCount + result.cache.windowByteCount,
            peakMemoryBytes: peakMemoryByteCount()
        )
        if snapshot != nil && result.reusedTokens == 0 {
            Console.printNote(
                "the prompt does not begin as the snapshot's text does, so it was read from its beginning"
            )
        }
        if json { return try Console.printJSON(report) }
        try Console.write("\n")
        Console.printNote(
            """
            prompt: \(report.promptTokens.grouped) tokens, \(report.reusedTokens.grouped) of them from the snapshot
            model opened in \((report.openingTime * 1000).fixed(1)) ms, first token after \((report.timeToFirstToken * 1000).fixed(1)) ms, \
            \(report.newTokens) tokens\(report.tokensPerSecond.map { ", then \($0.fixed(1)) tokens per second" } ?? "")
            cache: \(report.cacheBytes.grouped) bytes; peak memory: \(report.peakMemoryBytes.grouped) bytes
            """
        )
    }

    /// What the model's snapshots say of it, if there is a snapshot to be compared.
    private func readMetadata(of opened: LlamaModel) async throws -> [String: String]? {
        guard let snapshot else { return nil }
        _ = try await about(snapshot) { try SnapshotReader(path: snapshot) }
        return try opened.metadata(producer: ModelInput.producer)
    }

    /// The snapshot's cache, checked to be of the model.
    private func openSnapshot(
        for opened: LlamaModel,
        metadata: [String: String]?
    ) async throws -> CompressedCache? {
        guard let snapshot, let metadata else { return nil }
        return try await about(snapshot) {
            let reader = try SnapshotReader(path: snapshot)
            try opened.check(reader.metadata, geometry: reader.header.geometry, against: metadata)
            let cache = try await reader.cache()
            guard cache.tokens != nil else {
                throw ModelError(.mismatch, "has no token ids, so that nobody knows what it is of; make it anew")
            }
            return cache
        }
    }
}
