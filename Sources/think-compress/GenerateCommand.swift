internal import ArgumentParser
internal import LlamaDecoder
internal import TextTokenization
internal import ThinkCompress

struct GenerateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "generate",
        abstract: "Continue a text with a model, from a snapshot of its beginning.",
        discussion: """
            With --snapshot and --prompt the text of the snapshot goes on: its tokens, then those of --prompt.

            With --prompt-file the prompt is the whole text from its beginning: that of the file, then that of --prompt. \
            As far as it begins like the snapshot's, the snapshot is used and not computed; if they share just a prefix, \
            the snapshot is cut there; if that is shorter than a block of 32 tokens and than the snapshot, it is not used. \
            Nor is a part of a snapshot that can be used whole only, as one of a model with sliding windows.

            An archive is restored by the model's profile that it was made by (--profile), and packed for use in place by \
            --codec, 'balanced' if nothing is said.

            --save keeps the cache of everything, prompt and new tokens, as a snapshot that generate takes again. Tokens \
            that follow a snapshot are compressed by its recipe, others by --codec.

            Example:
              think-compress snapshot --model DIR --prompt-file long.txt -o p.tkv \\
                --codec "think(keys=0.4)+kivi(bits=2)"
              think-compress generate --model DIR --snapshot p.tkv \\
                --prompt " What is the number?" --save more.tkv
              think-compress generate --model DIR --snapshot p.tkv \\
                --prompt-file long.txt --prompt " What is the number?"

            A file called '-' is standard input, or standard output for --save.
            """
    )

    @Option(help: "The model: a directory with config.json, *.safetensors and tokenizer.json, or a GGUF file.")
    var model: String

    @Option(help: "A snapshot that the same model made: of the text that goes on, or of one that begins alike.")
    var snapshot: String?

    @Option(
        parsing: .unconditional,
        help: "The prompt: what follows the text of --prompt-file, or else that of --snapshot."
    )
    var prompt: String?

    @Option(help: "A file with the whole prompt from its beginning; --prompt follows it.")
    var promptFile: String?

    @Option(help: "A snapshot to write, of the prompt and the new tokens.")
    var save: String?

    @Flag(help: "Replace the snapshot to write if it exists.")
    var force = false

    @Option(
        help:
            "How to compress the prompt's cache where there is no snapshot, or an archive: a recipe, as snapshot takes it. (default: f16; of an archive balanced)"
    )
    var codec: String?

    @Option(help: ProfileInput.archiveHelp)
    var profile: String?

    @Option(parsing: .unconditional, help: "New tokens at the most.")
    var maxTokens = 128

    @Option(
        parsing: .unconditional,
        help: "0 takes the likeliest token always; 1 draws by the model's own probabilities."
    )
    var temperature = 0.0

    @Option(parsing: .unconditional, help: "Draw from the likeliest tokens that have this probability together.")
    var topP = 1.0

    @Option(parsing: .unconditional, help: "Determines what is drawn: a whole number from 0 on.")
    var seed: UInt64 = 0

    @OptionGroup var permissions: PermissionOptions

    @Flag(help: "Print text and figures as JSON.")
    var json = false

    func validate() throws {
        guard prompt != nil || promptFile != nil || snapshot != nil else {
            throw ValidationError("pass --prompt, --prompt-file or --snapshot")
        }
        try CountOption.check(maxTokens, "--max-tokens")
        guard temperature >= 0, temperature.isFinite else {
            throw ValidationError("--temperature \(temperature): must be 0 or more")
        }
        guard topP > 0, topP <= 1 else { throw ValidationError("--top-p \(topP): must be above 0 and at most 1") }
        if let codec, try RecipeOption.recipe(codec, option: "--codec").archive != nil {
            throw ValidationError("--codec \(codec): an archive is restored to be used; take a recipe in memory")
        }
        if profile != nil && snapshot == nil { throw ValidationError("--profile is that of the archive of --snapshot") }
        if permissions.mode != nil && save == nil { throw ValidationError("--mode is that of the file of --save") }
        try StandardStreams.check(
            texts: [promptFile],
            inputs: [snapshot, profile],
            output: save,
            option: "--save",
            json: json
        )
    }

    private struct Report: Encodable {
        let text: String
        let promptTokens: Int
        let reusedTokens: Int
        let newTokens: Int
        /// Seconds to open the model, and to have its weights' digest where snapshots must be told from others': read the
        /// first time, then remembered (Formats/model.md, "Identity").
        let openingTime: Double
        /// Seconds from the prompt, with the model open, to the first token.
        let timeToFirstToken: Double
        let tokensPerSecond: Double?
        let cacheBytes: Int
        let peakMemoryBytes: Int
        /// The snapshot that was written, its tokens and its bytes.
        var savedFile: String?
        var savedTokens: Int?
        var savedBytes: Int?
    }

    func run() async throws {
        let recipe = try RecipeOption.recipe(codec ?? "f16", option: "--codec")
        let inputs = [promptFile, profile].compactMap { $0 } + ModelInput.files(of: model)
        // The snapshot that is read may be replaced by the one that is saved: it stays mapped until the end.
        let output = try save.map { try OutputFile($0, replacingExisting: force, inputs: inputs) }
        let file = try promptFile.map { try InputFile($0) }
        let source = try snapshot.map { try InputFile($0) }
        let text = try await ModelInput.prompt(file: file, text: prompt)
        if let source { _ = try await about(source) { try SnapshotReader(path: source.path) } }
        let opening = ContinuousClock.now
        let opened = try LlamaModel(path: model)
        let decoder = TransformerDecoder(model: opened)
        // Reads every byte of weights that are not remembered, so after all that can be refused sooner.
        let metadata = source == nil && output == nil ? [:] : try ModelInput.metadata(of: opened)
        let generator = TextGenerator(
            decoder: decoder,
            sampler: Sampler(temperature: temperature, topP: topP, seed: seed),
            maximumTokens: maxTokens
        )
        let start = ContinuousClock.now
        let cache = try await openSnapshot(source, for: opened, metadata: metadata)
        let tokens = try await ModelInput.about(file?.name ?? (prompt == nil ? source?.name : nil) ?? "--prompt") {
            let tokens = try promptTokens(text, after: cache, model: opened)
            try decoder.check(tokens)
            return tokens
        }
        let reused = cache.map { decoder.reusableTokens(of: $0, for: tokens) } ?? 0
        if reused > 0, let source, let cache { try await about(source) { try decoder.check(cache) } }
        // From here on one thread works, and those that wake find another processor.
        decoder.workers.wake()
        var stream = opened.tokenizer.makeTextStream()
        var written = ""
        func write(_ piece: String) throws {
            written += piece
            if json { return }
            if let output { try output.write(piece) } else { try Console.write(piece) }
        }
        let (result, kept) = try await naming(reused > 0 ? source : nil, cache) {
            let result = try await generator.generate(
                tokens,
                from: cache,
                recipe: recipe,
                metadata: metadata,
                since: start,
                progress: Console.progress("reading the prompt", of: tokens.count - reused, "tokens")
            ) { token in
                try write(stream.append(token))
            }
            try write(stream.finish())
            if !json { try write("\n") }
            return (
                result, try output.map { _ in try generator.completeCache(of: result, promptTokens: tokens.count) }
            )
        }
        var report = Report(
            text: written,
            promptTokens: tokens.count,
            reusedTokens: result.reusedTokens,
            newTokens: result.tokens.count,
            openingTime: (start - opening).seconds,
            timeToFirstToken: result.timeToFirstToken.seconds,
            tokensPerSecond: result.tokensPerSecond,
            cacheBytes: result.cache.blockByteCount + result.cache.fullPrecisionByteCount,
            peakMemoryBytes: peakMemoryByteCount()
        )
        if let output, let kept {
            let writer = SnapshotWriter(
                replacesExisting: output.replacesExisting,
                access: FileAccess(
                    mode: permissions.mode,
                    isOwnerOnly: true,
                    inputs: [file?.path, source?.path].compactMap { $0 }
                )
            )
            let path = output.path
            let size = try await about(output.name) {
                try await writer.write(kept, to: path, progress: Console.progress("writing"))
            }
            try output.finish()
            report.savedFile = output.name
            report.savedTokens = kept.tokenCount
            report.savedBytes = size.fileBytes
        }
        if let cache, result.reusedTokens == 0 {
            Console.printNote(reasonForReadingAll(cache, prompt: tokens, decoder: decoder))
        }
        if json { return try Console.printJSON(report) }
        Console.printNote(summary(report))
    }

    private func summary(_ report: Report) -> String {
        var lines = """
            prompt: \(report.promptTokens.grouped) tokens, \(report.reusedTokens.grouped) of them from the snapshot
            model opened in \((report.openingTime * 1000).fixed(1)) ms, first token after \((report.timeToFirstToken * 1000).fixed(1)) ms, \
            \(report.newTokens) tokens\(report.tokensPerSecond.map { ", then \($0.fixed(1)) tokens per second" } ?? "")
            cache: \(report.cacheBytes.grouped) bytes; peak memory: \(report.peakMemoryBytes.grouped) bytes
            """
        if let file = report.savedFile, let tokens = report.savedTokens, let bytes = report.savedBytes {
            lines += "\n\(file): \(tokens.grouped) tokens in \(bytes.grouped) bytes"
            let missing = report.promptTokens + report.newTokens - tokens
            if missing > 0 { lines += "; the last one is left out, for which the model has no position" }
        }
        return lines
    }

    /// The tokens of the prompt from its beginning: those of the snapshot, unless a file has the whole text, and those of
    /// the text after them.
    private func promptTokens(_ text: String, after cache: CompressedCache?, model: LlamaModel) throws -> [Int32] {
        guard promptFile == nil, let before = cache?.tokens else { return try model.tokens(of: text) }
        guard let prompt else { return before }
        let tokens = try model.tokenizer.encode(prompt, addingSpecialTokens: false)
        guard !tokens.isEmpty else {
            throw ModelError(.invalidTokens, "the prompt is empty; pass some text, or leave it out")
        }
        return before + tokens
    }

    /// Why nothing of a snapshot could be used.
    private func reasonForReadingAll(
        _ cache: CompressedCache,
        prompt: [Int32],
        decoder: TransformerDecoder
    ) -> String {
        let shared = TransformerDecoder.sharedTokens(of: cache, with: prompt)
        let least = min(cache.shape.blockLength, cache.tokenCount)
        let wholeOnlyReason = decoder.wholeOnlyReason(of: cache)
        let reason =
            switch shared {
            case 0: "does not begin as the snapshot's text does"
            case cache.tokenCount where wholeOnlyReason != nil && prompt.count == shared:
                "adds nothing to the snapshot's text, and the snapshot can be used whole only, as "
                    + (wholeOnlyReason ?? "") + ": pass --prompt with what follows"
            case least... where wholeOnlyReason != nil:
                "is not all of the snapshot's text and more, and the snapshot can be used whole only, as "
                    + (wholeOnlyReason ?? "")
            case least... where decoder.obsoleteReason(of: cache, for: prompt) != nil:
                "is too long for the snapshot's keys: " + (decoder.obsoleteReason(of: cache, for: prompt) ?? "")
            case ..<least:
                "shares \(shared) \(shared == 1 ? "token" : "tokens") with the snapshot, fewer than "
                    + (least == cache.tokenCount ? "the \(least) that it has" : "a block of \(least)")
            default: "is a single token"
            }
        return "the prompt \(reason), so it was read from its beginning"
    }

    /// The snapshot's cache, checked to be of the model.
    private func openSnapshot(
        _ source: InputFile?,
        for opened: LlamaModel,
        metadata: [String: String]
    ) async throws -> CompressedCache? {
        guard let source else { return nil }
        let reader = try await about(source) {
            let reader = try SnapshotReader(path: source.path)
            try opened.check(reader.metadata, geometry: reader.geometry, against: metadata)
            return reader
        }
        if profile != nil && !reader.isArchive {
            throw InputError(path: source.name, underlying: ContentError(ArchiveInput.noArchive))
        }
        let archive =
            reader.isArchive
            ? try await ArchiveInput(reader, profile: try await ProfileInput(profile), of: source) : nil
        let recipe = try RecipeOption.recipe(codec ?? "balanced", option: "--codec")
        return try await about(source) {
            let cache = if let archive { try await archive.cache(packedBy: recipe) } else { try await reader.cache() }
            guard cache.tokens != nil else {
                throw ModelError(.mismatch, "has no token ids, so that nobody knows what it is of; make it anew")
            }
            return cache
        }
    }

    /// Adds to errors of computing which file is at fault: the snapshot if it is used and holds what is no number, or else
    /// the model.
    private func naming<Result>(
        _ source: InputFile?,
        _ cache: CompressedCache?,
        _ body: () async throws -> Result
    ) async throws -> Result {
        do {
            return try await ModelInput.about(model, body)
        } catch let error as InputError {
            if let source, let cache {
                try await about(source) { for layer in cache.layers { try layer.checkFinite() } }
            }
            throw error
        }
    }
}
