internal import ArgumentParser
internal import LlamaDecoder
internal import ThinkCompress

/// The papers' claims of memory, batch size and throughput, measured on a model that fits this machine.
struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure how many prompts fit in memory at a time, and how fast they go on.",
        discussion: """
            Every figure comes from a run in a process of its own, which reads a prompt, keeps its compressed cache as \
            often as the batch is large, and continues all of them token by token. The largest batch is the one that \
            stays within the limit while the next larger one does not.

            For comparison, the papers' figures, of models of 7 billion parameters on a GPU: KIVI at 2 bits takes 2.6 \
            times less peak memory, up to 4 times the batch, 2.35 to 3.47 times the throughput (arXiv 2402.02750); \
            ThinK with KIVI 2.8 times less peak memory, 5 times the batch (arXiv 2407.21018).

            Example:
              think-compress bench --model DIR --memory-limit 256
            """
    )

    @OptionGroup var work: BenchWork

    @Option(help: "Recipes separated by ';', as snapshot takes them; the others are compared with the first.")
    var codecs = "f16;kivi(bits=2);think(keys=0.4)+kivi(bits=2)"

    @Option(help: "Peak memory that a process may have, in MiB.")
    var memoryLimit = 128

    @Option(help: "The largest batch that is tried.")
    var maxBatch = 512

    @Flag(help: "Print the figures as JSON.")
    var json = false

    func validate() throws {
        try CountOption.check(memoryLimit, "--memory-limit", upTo: 1 << 30)
        try CountOption.check(maxBatch, "--max-batch")
        for recipe in try RecipeOption.recipes(codecs, option: "--codecs") where recipe.archive != nil {
            throw ValidationError("--codecs \(recipe): an archive is restored to be used; take a recipe in memory")
        }
    }

    /// What one recipe gave.
    private struct Figures: Encodable {
        let recipe: String
        /// The preset that stands for it, or the budget that was asked for.
        let name: String?
        /// Bytes that keys and values of a prompt take.
        let cacheBytes: Int
        /// With a batch of one, and with the largest batch of the first recipe.
        let peakMemoryBytes: Int
        var peakMemoryBytesAtFirstBatch: Int?
        /// 0 if not even one prompt fits.
        let largestBatch: Int
        /// Tokens per second of the whole batch: of one prompt, and of the largest batch.
        let tokensPerSecond: Double
        let tokensPerSecondAtLargestBatch: Double?
    }

    private struct Report: Encodable {
        let model: String
        let promptTokens: Int
        let newTokens: Int
        let memoryLimitBytes: Int
        let recipes: [Figures]
    }

    func run() async throws {
        let recipes = try RecipeOption.recipes(codecs, option: "--codecs")
        let opened = try LlamaModel(path: work.model)
        try await ModelInput.about(work.model) { try work.check(opened) }
        // Refused here, and not by a run of many.
        _ = try await work.profile(of: opened)
        let limit = memoryLimit << 20
        let progress = Console.progress("measuring")
        var figures: [Figures] = []
        for (index, recipe) in recipes.enumerated() {
            let search = BatchSearch(limit: limit, maximum: maxBatch) { batch in
                try await BenchProcess.run(work, recipe: recipe, batch: batch)
            }
            let found = try await search.largest()
            let single = found.single
            var atFirst: Int?
            if let batch = figures.first?.largestBatch ?? found.largest?.batch, batch > 0 {
                atFirst =
                    batch == found.largest?.batch
                    ? found.largest?.peakMemoryBytes
                    : try await BenchProcess.run(work, recipe: recipe, batch: batch).peakMemoryBytes
            }
            figures.append(
                Figures(
                    recipe: single.recipe,
                    name: recipe.description == single.recipe
                        ? CodecRegistry.standard.name(of: single.recipe) : recipe.description,
                    cacheBytes: single.cacheBytes,
                    peakMemoryBytes: single.peakMemoryBytes,
                    peakMemoryBytesAtFirstBatch: atFirst,
                    largestBatch: found.largest?.batch ?? 0,
                    tokensPerSecond: single.tokensPerSecond,
                    tokensPerSecondAtLargestBatch: found.largest?.tokensPerSecond
                )
            )
            progress?(Double(index + 1) / Double(recipes.count))
        }
        let report = Report(
            model: work.model,
            promptTokens: work.promptTokens,
            newTokens: work.newTokens,
            memoryLimitBytes: limit,
            recipes: figures
        )
        if json { try Console.printJSON(report) } else { try Console.print(table(figures)) }
    }

    private func table(_ figures: [Figures]) -> String {
        var table = TextTable(header: [
            "recipe", "cache", "peak, 1 prompt", "peak, \(figures[0].largestBatch) prompts", "largest batch",
            "tokens/s, 1 prompt", "tokens/s, largest batch",
        ])
        let first = figures[0]
        func relative(_ value: Double?, _ reference: Double?, isInverse: Bool = false) -> String {
            guard let value, let reference, value > 0, reference > 0 else { return "" }
            return " (\((isInverse ? reference / value : value / reference).fixed(2))x)"
        }
        func bytes(_ count: Int?, _ reference: Int?) -> String {
            guard let count else { return "-" }
            return (Double(count) / 1_048_576).fixed(1) + " MiB"
                + relative(Double(count), reference.map(Double.init), isInverse: true)
        }
        for figure in figures {
            table.add([
                Recipe.title(figure.recipe, name: figure.name),
                bytes(figure.cacheBytes, first.cacheBytes),
                bytes(figure.peakMemoryBytes, first.peakMemoryBytes),
                bytes(figure.peakMemoryBytesAtFirstBatch, first.peakMemoryBytesAtFirstBatch),
                "\(figure.largestBatch)" + relative(Double(figure.largestBatch), Double(first.largestBatch)),
                figure.tokensPerSecond.fixed(0) + relative(figure.tokensPerSecond, first.tokensPerSecond),
                figure.tokensPerSecondAtLargestBatch.map {
                    $0.fixed(0) + relative($0, first.tokensPerSecondAtLargestBatch)
                } ?? "-",
            ])
        }
        return "prompts of \(work.promptTokens) tokens, \(work.newTokens) new ones each, at most \(memoryLimit) MiB; "
            + "in brackets how many times better than \(first.name ?? first.recipe)\n\n" + table.text
    }
}

/// Finds the largest batch whose run stays within a limit of memory.
private struct BatchSearch {
    let limit: Int
    let maximum: Int
    let measure: (Int) async throws -> BenchRun.Report

    /// The run of one prompt, and that of the largest batch, if any fits.
    ///
    /// Memory grows evenly with the batch, so that a guess from two runs is off by little.
    func largest() async throws -> (single: BenchRun.Report, largest: BenchRun.Report?) {
        let single = try await measure(1)
        guard single.peakMemoryBytes <= limit else { return (single, nil) }
        var fitting = single
        var failing = maximum + 1
        var batch = min(8, maximum)
        while fitting.batch + 1 < failing {
            let run = try await measure(batch)
            if run.peakMemoryBytes <= limit { fitting = run } else { failing = batch }
            let perPrompt = Double(run.peakMemoryBytes - single.peakMemoryBytes) / Double(max(batch - 1, 1))
            let guess = perPrompt > 0 ? Double(limit - single.peakMemoryBytes) / perPrompt + 1 : Double(maximum)
            batch = min(max(Int(min(guess, Double(maximum))), fitting.batch + 1), failing - 1)
        }
        return (single, fitting)
    }
}
