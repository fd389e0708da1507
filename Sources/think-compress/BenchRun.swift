internal import ArgumentParser
internal import Foundation
internal import LlamaDecoder
internal import ThinkCompress

/// What a run of `bench` does.
struct BenchWork: ParsableArguments {
    @Option(help: "The model: a directory with config.json, *.safetensors and tokenizer.json, or a GGUF file.")
    var model: String

    @Option(help: ProfileInput.help)
    var profile: String?

    @Option(help: "Tokens of every prompt.")
    var promptTokens = 2048

    @Option(help: "Tokens that follow each.")
    var newTokens = 32

    func validate() throws {
        try CountOption.check(promptTokens, "--prompt-tokens")
        try CountOption.check(newTokens, "--new-tokens")
        // Every run is a process of its own, and reads it.
        if profile == StandardStreams.name { throw ValidationError("--profile -: it is read many times; name a file") }
    }

    /// The profile of the model's layers, if one was passed.
    func profile(of model: LlamaModel) async throws -> [LayerProfile]? {
        guard let input = try await ProfileInput(profile) else { return nil }
        let metadata = try ModelInput.metadata(of: model)
        return try await input.layers(metadata: metadata, geometry: model.configuration.geometry)
    }

    /// Checks that the model has positions for prompt and new tokens.
    func check(_ model: LlamaModel) throws(ModelError) {
        let (needed, positions) = (promptTokens + newTokens, model.configuration.maximumPositions)
        guard needed <= positions else {
            throw ModelError(
                .invalidTokens,
                "\(needed) tokens are asked for, and the model has \(positions) positions; pass a smaller --prompt-tokens"
            )
        }
    }

    /// A prompt of random tokens.
    func prompt(for model: LlamaModel) -> [Int32] {
        var random = SplitMix64(seed: 0)
        return (0..<promptTokens).map { _ in
            Int32.random(in: 0..<Int32(model.configuration.vocabularySize), using: &random)
        }
    }
}

/// One run of `bench`, in a process of its own so that its peak memory is its own.
struct BenchRun: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "bench-run", shouldDisplay: false)

    @OptionGroup var work: BenchWork

    @Option(help: "The recipe.")
    var codec: String

    @Option(help: "Prompts at a time.")
    var batch: Int

    func validate() throws {
        try CountOption.check(batch, "--batch")
    }

    struct Report: Codable {
        let batch: Int
        /// The recipe that the cache was compressed by in the end.
        let recipe: String
        let cacheBytes: Int
        let peakMemoryBytes: Int
        let tokensPerSecond: Double
    }

    func run() async throws {
        let recipe = try RecipeOption.recipe(codec, option: "--codec")
        let opened = try LlamaModel(path: work.model)
        try work.check(opened)
        let decoder = TransformerDecoder(model: opened)
        let profile = try await work.profile(of: opened)
        let first = try await ModelInput.about(work.model) {
            try await decoder.prefill(work.prompt(for: opened), recipe: recipe, profile: profile)
        }
        // Prompts of different users have different caches; what matters here is that each has memory of its own.
        var caches = [first.cache]
        for _ in 1..<batch { caches.append(try first.cache.detached()) }
        var sampler = Sampler()
        var tokens = [Int32](repeating: try sampler.choose(first.logits), count: caches.count)
        let vocabulary = opened.configuration.vocabularySize
        let start = ContinuousClock.now
        for _ in 0..<work.newTokens {
            try Task.checkCancellation()
            let logits = try decoder.advance(&caches, with: tokens)
            for index in tokens.indices {
                tokens[index] = try sampler.choose(logits[index * vocabulary..<(index + 1) * vocabulary])
            }
        }
        let seconds = (ContinuousClock.now - start).seconds
        try Console.printJSON(
            Report(
                batch: caches.count,
                recipe: first.cache.recipe?.description ?? recipe.description,
                cacheBytes: first.cache.blockByteCount + first.cache.fullPrecisionByteCount,
                peakMemoryBytes: peakMemoryByteCount(),
                tokensPerSecond: Double(work.newTokens * caches.count) / seconds
            )
        )
    }
}

/// Starts runs.
enum BenchProcess {
    /// - Throws: `BenchError` with what the run printed if it failed.
    static func run(_ work: BenchWork, recipe: Recipe, batch: Int) async throws -> BenchRun.Report {
        try Task.checkCancellation()
        let arguments =
            [
                BenchRun.configuration.commandName ?? "", "--model", work.model, "--prompt-tokens",
                "\(work.promptTokens)",
                "--new-tokens", "\(work.newTokens)", "--codec", recipe.description, "--batch", "\(batch)",
            ] + (work.profile.map { ["--profile", $0] } ?? [])
        func failure(_ reason: String) -> BenchError {
            BenchError(description: "\(recipe) with \(batch) prompts at a time failed: \(reason)")
        }
        guard let program = Bundle.main.executablePath else { throw failure("the command's own file is not found") }
        let process = try ChildProcess(program, arguments)
        let end = await withTaskCancellationHandler {
            process.waitUntilEnd()
        } onCancel: {
            process.terminate()
        }
        try Task.checkCancellation()
        guard end.status == 0 else {
            let text = String(decoding: end.errors, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
            throw failure(text.isEmpty ? "it was ended by a signal; memory may not suffice" : text)
        }
        return try JSONDecoder().decode(BenchRun.Report.self, from: Data(end.output))
    }
}

struct BenchError: Error, CustomStringConvertible {
    let description: String
}
