internal import ArgumentParser
internal import ByteStorage
internal import LlamaDecoder
internal import ThinkCompress

struct SnapshotCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshot",
        abstract: "Compress the cache of a prompt and write it as a snapshot.",
        discussion: """
            The cache comes from a dump that another engine wrote, or is computed: --model reads the prompt and \
            compresses layer by layer as it goes. The snapshot is its owner's alone: see --mode.

            \(RecipeOption.help)

            Example:
              think-compress snapshot dump.safetensors -o prompt.tkv
              think-compress snapshot --model DIR --profile MODEL.profile \\
                --prompt-file long.txt -o prompt.tkv --codec faithful
              think-compress snapshot dump.safetensors -o prompt.tkv \\
                --codec "think(keys=0.4)+kivi(bits=2)"

            A file called '-' is standard input, or standard output for -o.
            """
    )

    @Argument(help: "The cache dump: a safetensors file with layers.N.keys and layers.N.values.")
    var input: String?

    @Option(
        help:
            "Compute the cache with this model: a directory with config.json, *.safetensors and tokenizer.json, or a GGUF file."
    )
    var model: String?

    @Option(help: "The text that the model reads.")
    var promptFile: String?

    @Option(parsing: .unconditional, help: "Text that the model reads, after that of --prompt-file.")
    var prompt: String?

    @Option(name: .shortAndLong, help: "The snapshot to write.")
    var output: String

    @Option(help: "The recipe to compress by: a preset, or stages.")
    var codec = "balanced"

    @Option(help: ProfileInput.help)
    var profile: String?

    @Option(
        parsing: .unconditional,
        help: "Pack sections with zstd at this level (1...19): for files that need not be used in place."
    )
    var compress: Int?

    @Flag(name: .customLong("no-quality"), help: "Do not measure and store what compression cost.")
    var skipsQuality = false

    @OptionGroup var permissions: PermissionOptions

    @Flag(help: "Replace the output if it exists.")
    var force = false

    @Flag(help: "Print the snapshot's description as JSON, as inspect does.")
    var json = false

    func validate() throws {
        _ = try RecipeOption.recipe(codec, option: "--codec")
        if let compress, !SnapshotWriter.compressionLevels.contains(compress) {
            let levels = SnapshotWriter.compressionLevels
            throw ValidationError(
                "--compress \(compress): the level must be \(levels.lowerBound)...\(levels.upperBound)"
            )
        }
        switch (input, model) {
        case (nil, nil):
            throw ValidationError("pass a cache dump, or --model and --prompt-file to compute the cache")
        case (.some, .some):
            throw ValidationError("pass a cache dump or --model, not both")
        case (.some, nil):
            if prompt != nil || promptFile != nil { throw ValidationError("--prompt and --prompt-file need --model") }
        case (nil, .some):
            if prompt == nil && promptFile == nil { throw ValidationError("--model needs --prompt-file or --prompt") }
        }
        try StandardStreams.check(texts: [promptFile], inputs: [input, profile], output: output, json: json)
    }

    func run() async throws {
        let recipe = try RecipeOption.recipe(codec, option: "--codec")
        let inputs = [input, promptFile, profile].compactMap { $0 }
        let files = inputs.filter { $0 != StandardStreams.name } + (model.map(ModelInput.files) ?? [])
        let output = try OutputFile(self.output, replacingExisting: force, inputs: files)
        let dump = try input.map { try InputFile($0) }
        let (result, quality) =
            if let dump {
                try await read(dump, recipe: recipe)
            } else {
                try await compute(model: model ?? "", recipe: recipe)
            }
        let path = output.path
        let writer = SnapshotWriter(
            compressionLevel: compress,
            replacesExisting: output.replacesExisting,
            access: FileAccess(
                mode: permissions.mode,
                isOwnerOnly: true,
                inputs: try inputs.map { try InputFile($0).path }
            )
        )
        let summary = try await about(dump?.name ?? output.name) {
            switch result {
            case .cache(let cache):
                let size = try await writer.write(
                    cache,
                    quality: quality,
                    to: path,
                    progress: Console.progress("writing")
                )
                return SnapshotSummary(cache, quality: quality, size: size)
            case .archive(let archive):
                let size = try writer.write(archive, quality: quality, to: path)
                return SnapshotSummary(archive, quality: quality, size: size)
            }
        }
        let report = SnapshotReport(summary, path: output.name)
        try output.finish()
        if json {
            try Console.printJSON(report)
        } else {
            try output.print(
                "\(output.name): \(report.tokens.grouped) tokens in \(report.fileBytes.grouped) bytes, "
                    + "\(report.ratio.fixed(2)) times smaller than float16, \(report.bitsPerValue?.fixed(2) ?? "-") bits per value"
            )
            if codec != report.recipe { try output.print("recipe: \(RecipeOption.title(report.recipe))") }
            if let share = report.listedShare { try output.print("tokens kept: \(share)") }
            if let rationale = summary.metadata[CacheCompressor.rationaleKey] {
                try output.print("note: \(rationale.printable)")
            }
            if let quality = report.quality { try output.print("relative errors: \(quality.text)") }
        }
    }

    /// What is written.
    private enum Contents {
        case cache(CompressedCache)
        case archive(CacheArchive)
    }

    /// Archives a cache, and measures what restoring it gives.
    private func archive(
        _ cache: KVCache,
        recipe: Recipe,
        quality measure: (CompressedCache) async throws -> CompressionQuality
    ) async throws -> (Contents, CompressionQuality?) {
        let archive = try await CacheArchive(
            archiving: cache,
            recipe: recipe,
            progress: Console.progress("archiving")
        )
        if skipsQuality { return (.archive(archive), nil) }
        let profile = cache.layers.map { $0.profile ?? .empty }
        let restored = try await CompressedCache(
            restoring: archive,
            profile: archive.plan.basisDigest == nil ? nil : profile,
            recipe: try Recipe(FullPrecisionCodec(elementType: cache.elementType))
        )
        return (.archive(archive), try await measure(restored))
    }

    /// Compresses a dump.
    private func read(_ input: InputFile, recipe: Recipe) async throws -> (Contents, CompressionQuality?) {
        let profile = try await ProfileInput(profile)
        var cache = try await about(input) { try CacheDump.read(path: input.path) }
        if let profile {
            let layers = try await profile.layers(metadata: cache.metadata, geometry: cache.geometry)
            cache = try await about(input) { try cache.withProfile(layers) }
        }
        let original = cache
        return try await about(input) {
            if recipe.archive != nil {
                return try await archive(original, recipe: recipe) { restored in
                    let comparison = try CacheComparison(original: original, compressed: restored)
                    return try await comparison.measure(progress: Console.progress("measuring"))
                }
            }
            let compressed = try await CompressedCache(
                compressing: original,
                recipe: recipe,
                progress: Console.progress("compressing")
            )
            if skipsQuality { return (.cache(compressed), nil) }
            let comparison = try CacheComparison(original: original, compressed: compressed)
            return (.cache(compressed), try await comparison.measure(progress: Console.progress("measuring")))
        }
    }

    /// Computes a prompt's cache and compresses each layer as it is done.
    private func compute(model: String, recipe: Recipe) async throws -> (Contents, CompressionQuality?) {
        let profile = try await ProfileInput(profile)
        let file = try promptFile.map { try InputFile($0) }
        let text = try await ModelInput.prompt(file: file, text: prompt)
        let opened = try LlamaModel(path: model)
        let decoder = TransformerDecoder(model: opened)
        let tokens = try await ModelInput.about(file?.name ?? "--prompt") {
            let tokens = try opened.tokens(of: text)
            try decoder.check(tokens)
            return tokens
        }
        return try await ModelInput.about(model) {
            let metadata = try ModelInput.metadata(of: opened)
            var measurement = QualityMeasurement()
            let configuration = opened.configuration
            let layers = try await profile?.layers(metadata: metadata, geometry: configuration.geometry)
            if recipe.archive != nil {
                var cache = try await decoder.heldCache(
                    tokens,
                    queryWindow: recipe.observationWindow,
                    metadata: metadata,
                    progress: Console.progress("reading the prompt", of: tokens.count, "tokens")
                )
                if let layers { cache = try cache.withProfile(layers) }
                let original = cache
                return try await archive(original, recipe: recipe) { restored in
                    for (layer, compressed) in zip(original.layers, restored.layers) {
                        try await measurement.add(
                            layer,
                            compressed: compressed,
                            slidingWindow: configuration.slidingWindows[compressed.index]
                        )
                    }
                    return measurement.quality
                }
            }
            let result = try await decoder.prefill(
                tokens,
                recipe: recipe,
                profile: layers,
                metadata: metadata,
                progress: Console.progress("reading the prompt", of: tokens.count, "tokens"),
                compressionProgress: Console.progress("compressing")
            ) { original, compressed in
                if skipsQuality { return }
                try await measurement.add(
                    original,
                    compressed: compressed,
                    slidingWindow: configuration.slidingWindows[compressed.index]
                )
            }
            return (.cache(result.cache), skipsQuality ? nil : measurement.quality)
        }
    }
}
