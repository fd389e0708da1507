internal import ArgumentParser
internal import ThinkCompress

struct CompareCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compare",
        abstract: "Measure what a snapshot lost against the dump that it was made from.",
        discussion: """
            Errors are relative: the Frobenius norm of the difference over that of the original. Scores and attention
            output are computed with the queries of the dump. Tokens that the snapshot dropped count in the attention output
            alone, which is compared with attention over all.

            Example:
              think-compress compare dump.safetensors prompt.tkv

            A file called '-' is standard input.
            """
    )

    @Argument(help: "The cache dump.")
    var original: String

    @Argument(help: "The snapshot.")
    var snapshot: String

    @Option(help: ProfileInput.archiveHelp)
    var profile: String?

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        try StandardStreams.check(inputs: [original, snapshot, profile])
    }

    private struct Report: Encodable {
        let recipe: String
        let bitsPerValue: Double?
        let ratio: Double
        let total: ErrorReport
        let layers: [ErrorReport]

        private enum CodingKeys: String, CodingKey {
            case recipe, bitsPerValue, ratio, layers
        }

        func encode(to encoder: any Encoder) throws {
            try total.encode(to: encoder)
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(recipe, forKey: .recipe)
            try container.encode(bitsPerValue, forKey: .bitsPerValue)
            try container.encode(ratio, forKey: .ratio)
            try container.encode(layers, forKey: .layers)
        }
    }

    func run() async throws {
        let original = try InputFile(self.original)
        let snapshot = try InputFile(self.snapshot)
        let cache = try await about(original) { try CacheDump.read(path: original.path) }
        let reader = try await about(snapshot) {
            try SnapshotReader(path: snapshot.path, access: .reading)
        }
        if profile != nil && !reader.isArchive {
            throw InputError(path: snapshot.name, underlying: ContentError(ArchiveInput.noArchive))
        }
        let archive =
            reader.isArchive
            ? try await ArchiveInput(reader, profile: try await ProfileInput(profile), of: snapshot) : nil
        let quality = try await about(snapshot) {
            let comparison =
                if let archive {
                    try CacheComparison(
                        original: cache,
                        compressed: try await archive.cache(
                            packedBy: try Recipe(FullPrecisionCodec(elementType: reader.header.shape.elementType))
                        )
                    )
                } else {
                    try CacheComparison(original: cache, snapshot: reader)
                }
            return try await comparison.measure(progress: Console.progress("measuring"))
        }
        if !quality.isFinite, archive == nil { try await explainMissingErrors(reader, name: snapshot.name) }
        let summary = reader.summary
        let recipe = summary.recipe?.description ?? ""
        if json {
            try Console.printJSON(
                Report(
                    recipe: recipe,
                    bitsPerValue: summary.bitsPerValue,
                    ratio: summary.ratio,
                    total: ErrorReport(quality.total),
                    layers: quality.layers.map(ErrorReport.init)
                )
            )
            return
        }
        try Console.print(
            "\(RecipeOption.title(recipe)): \(summary.bitsPerValue?.fixed(2) ?? "-") bits per value, "
                + "\(summary.ratio.fixed(2)) times smaller than float16\n"
        )
        var table = TextTable(header: ["layer", "keys", "values", "scores", "attention"])
        for (index, errors) in quality.layers.enumerated() { table.add(["\(index)"] + ErrorReport(errors).cells) }
        table.add(["all"] + ErrorReport(quality.total).cells)
        try Console.print(table.text)
        if quality.total.scores == nil {
            try Console.print("\nscores and attention need queries in the dump (layers.N.queries)")
        }
    }

    /// Says why errors are missing: numbers of the snapshot, or else of the dump, are infinite or no numbers at all.
    private func explainMissingErrors(_ reader: SnapshotReader, name: String) async throws {
        let cause = "errors that are missing are not finite"
        let layers = try reader.layers()
        do {
            for index in reader.plans.indices { try await layers.layer(index).checkFinite() }
            Console.printNote("\(cause): the dump holds infinities, or what is no number")
        } catch let error as CodecError {
            Console.printNote("\(cause): \(name): \(error)")
        }
    }
}
