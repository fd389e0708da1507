internal import ArgumentParser
internal import ThinkCompress

struct CompareCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compare",
        abstract: "Measure what a snapshot lost against the dump that it was made from.",
        discussion: """
            Errors are relative: the Frobenius norm of the difference over that of the original. Scores and attention
            output are computed with the queries of the dump.

            Example:
              think-compress compare dump.safetensors prompt.tkv
            """
    )

    @Argument(help: "The cache dump.")
    var original: String

    @Argument(help: "The snapshot.")
    var snapshot: String

    @Flag(help: "Print JSON.")
    var json = false

    private struct Report: Encodable {
        let recipe: String
        let bitsPerValue: Double
        let ratio: Double
        let keyError: Float
        let valueError: Float
        let scoreError: Float?
        let attentionError: Float?
        let layers: [ErrorReport]
    }

    func run() async throws {
        let cache = try await about(original) { try CacheDump.read(path: original) }
        let reader = try await about(snapshot) { try SnapshotReader(path: snapshot, registry: .standard) }
        let quality = try await about(snapshot) {
            let comparison = try CacheComparison(original: cache, compressed: try await reader.cache())
            return try await comparison.measure(progress: Console.progress("measuring"))
        }
        if json {
            try Console.printJSON(
                Report(
                    recipe: reader.recipe.description,
                    bitsPerValue: reader.bitsPerValue,
                    ratio: reader.ratio,
                    keyError: quality.total.keys,
                    valueError: quality.total.values,
                    scoreError: quality.total.scores,
                    attentionError: quality.total.attention,
                    layers: quality.layers.map(ErrorReport.init)
                )
            )
            return
        }
        print(
            "\(reader.recipe): \(reader.bitsPerValue.fixed(2)) bits per value, "
                + "\(reader.ratio.fixed(2)) times smaller than float16\n"
        )
        var table = TextTable(header: ["layer", "keys", "values", "scores", "attention"])
        for (index, errors) in quality.layers.enumerated() { table.add(["\(index)"] + ErrorReport(errors).cells) }
        table.add(["all"] + ErrorReport(quality.total).cells)
        print(table.text)
        if quality.total.scores == nil { print("\nscores and attention need queries in the dump (layers.N.queries)") }
    }
}
