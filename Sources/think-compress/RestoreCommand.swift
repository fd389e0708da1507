internal import ArgumentParser
internal import ThinkCompress

struct RestoreCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore",
        abstract: "Bring a snapshot back as a cache dump.",
        discussion: """
            Every byte of the snapshot is checked, and what is written is what was checked. The dump is readable \
            by its owner alone: see --mode.

            An archive is restored by the model's profile that it was made by. With --codec it becomes a snapshot that is \
            used in place, without its queries: layers are restored and packed a few at a time.

            Example:
              think-compress restore prompt.tkv -o restored.safetensors \\
                --tokens 1024 --expect model.id=my-model
              think-compress restore archive.tkv --profile MODEL.profile \\
                -o prompt.tkv --codec balanced

            A file called '-' is standard input, or standard output for -o.
            """
    )

    @Argument(help: "The snapshot.")
    var input: String

    @Option(name: .shortAndLong, help: "The dump to write; with --codec, the snapshot.")
    var output: String

    @Option(help: ProfileInput.archiveHelp)
    var profile: String?

    @Option(help: "Pack an archive as a snapshot by this recipe, instead of writing a dump.")
    var codec: String?

    @Option(parsing: .unconditional, help: "Restore only the first so many tokens.")
    var tokens: Int?

    @Option(help: "The element type of the dump: F16, BF16 or F32; by default the cache's own.")
    var type: String?

    @Option(
        parsing: .unconditionalSingleValue,
        help: "Refuse a snapshot whose metadata differs: KEY=VALUE. May be repeated."
    )
    var expect: [String] = []

    @OptionGroup var permissions: PermissionOptions

    @Flag(help: "Replace the output if it exists.")
    var force = false

    @Flag(help: "Print what was restored as JSON.")
    var json = false

    func validate() throws {
        if let type, ElementType(name: type.uppercased()) == nil {
            throw ValidationError("--type \(type): must be F16, BF16 or F32")
        }
        if let codec {
            let recipe = try RecipeOption.recipe(codec, option: "--codec")
            guard recipe.archive == nil else {
                throw ValidationError("--codec \(codec): an archive is restored to be used; take a recipe in memory")
            }
            guard type == nil, tokens == nil else {
                throw ValidationError("--codec packs the whole archive in its own type; leave out --type and --tokens")
            }
        }
        if let tokens, tokens < 1 { throw ValidationError("--tokens \(tokens): must be at least 1") }
        if let pair = expect.first(where: { !$0.contains("=") }) {
            throw ValidationError("--expect \(pair): must be KEY=VALUE")
        }
        try StandardStreams.check(inputs: [input, profile], output: output, json: json)
    }

    private struct Report: Encodable {
        let file: String
        let tokens: Int
        let layers: Int
        let kvHeads: Int?
        let headDim: Int?
        let elementType: String
        let recipe: String
    }

    func run() async throws {
        let output = try OutputFile(
            self.output,
            replacingExisting: force,
            inputs: [input, profile].compactMap { $0 }.filter { $0 != StandardStreams.name }
        )
        let input = try InputFile(self.input)
        let reader = try await about(input) {
            try SnapshotReader(path: input.path, access: .reading)
        }
        let profile = try await ProfileInput(profile)
        if let codec {
            let recipe = try RecipeOption.recipe(codec, option: "--codec")
            return try await pack(input, reader, profile: profile, recipe: recipe, to: output)
        }
        let header = reader.header
        let count = tokens ?? header.tokenCount
        let elementType = type.flatMap { ElementType(name: $0.uppercased()) } ?? header.shape.elementType
        let (layers, contents) = try await about(input) {
            try checkExpectations(reader)
            // All but the pages, each of which is checked before it is restored.
            try await reader.verify(includingPages: false)
            var contents = CacheDumpWriter.Contents(tokenCount: count)
            contents.tokens = try reader.tokens().map { Array($0.prefix(count)) }
            contents.positions = try reader.positions().map { Array($0.prefix(count)) }
            contents.profile = try reader.profile()
            contents.metadata = reader.metadata
            if count < header.tokenCount, let reason = reader.wholeOnlyReason {
                throw ContentError("can be restored whole only, as \(reason); leave out --tokens")
            }
            return (reader.isArchive ? nil : try reader.layers(), contents)
        }
        if profile != nil && !reader.isArchive {
            throw InputError(path: input.name, underlying: ContentError(ArchiveInput.noArchive))
        }
        let archive = reader.isArchive ? try await ArchiveInput(reader, profile: profile, of: input) : nil
        var writer = try CacheDumpWriter(
            path: output.path,
            replacingExisting: output.replacesExisting,
            access: FileAccess(mode: permissions.mode, isOwnerOnly: true, inputs: [input.path]),
            layers: reader.layerOutlines.enumerated().map { index, layer in
                CacheDumpWriter.Layer(
                    geometry: layer.geometry,
                    rowCount: min(layer.extent.rowCount, count),
                    held: layers?.held(layer: index) ?? archive?.archive.layers[index].held ?? .all,
                    state: layers?.state(layer: index) ?? archive?.archive.layers[index].state ?? []
                )
            },
            elementType: elementType,
            contents: contents
        )
        if let archive {
            try await about(input) {
                try await archive.forEachLayer(tokens: count, as: elementType) { index, layer in
                    if layer.keys.tokens > 0 { try writer.write(layer, index: index, firstRow: 0) }
                }
            }
        }
        try await about(input) {
            try await layers?.forEachPiece(progress: Console.progress("restoring")) { piece in
                // Pieces after the last token that is wanted are still checked.
                let wanted = 0..<max(min(piece.layer.rowCount, count - piece.firstRow), 0)
                try piece.layer.checkRange(rows: wanted, as: elementType)
                return RestoredPiece(
                    layer: try piece.layer.decompress(rows: wanted, as: elementType),
                    index: piece.layer.index,
                    firstRow: piece.firstRow
                )
            } take: { piece in
                if piece.layer.keys.tokens == 0 { return }
                try writer.write(piece.layer, index: piece.index, firstRow: piece.firstRow)
            }
        }
        try writer.commit()
        try output.finish()
        let report = Report(
            file: output.name,
            tokens: count,
            layers: header.layerCount,
            kvHeads: reader.geometry.commonLayer?.kvHeads,
            headDim: reader.geometry.commonLayer?.keyDimension,
            elementType: elementType.name,
            recipe: reader.recipe?.description ?? ""
        )
        if json {
            try Console.printJSON(report)
        } else {
            try output.print("\(output.name): \(count.grouped) tokens of \(report.layers) layers, \(elementType.name)")
        }
    }

    /// Writes an archive as a snapshot that is used in place.
    private func pack(
        _ input: InputFile,
        _ reader: SnapshotReader,
        profile: ProfileInput?,
        recipe: Recipe,
        to output: OutputFile
    ) async throws {
        try await about(input) {
            try checkExpectations(reader)
            try await reader.verify(includingPages: false)
            guard reader.isArchive else {
                throw ContentError("is no archive, and --codec packs archives alone; leave it out")
            }
        }
        let archive = try await ArchiveInput(reader, profile: profile, of: input)
        let cache = try await about(input) {
            try await archive.cache(packedBy: recipe, progress: Console.progress("restoring"))
        }
        let writer = SnapshotWriter(
            replacesExisting: output.replacesExisting,
            access: FileAccess(mode: permissions.mode, isOwnerOnly: true, inputs: [input.path])
        )
        let path = output.path
        let size = try await about(output.name) {
            try await writer.write(cache, to: path, progress: Console.progress("writing"))
        }
        try output.finish()
        let report = SnapshotReport(SnapshotSummary(cache, quality: nil, size: size), path: output.name)
        if json {
            try Console.printJSON(report)
        } else {
            try output.print(
                "\(output.name): \(report.tokens.grouped) tokens in \(report.fileBytes.grouped) bytes, "
                    + "\(report.ratio.fixed(2)) times smaller than float16"
            )
        }
    }

    private func checkExpectations(_ reader: SnapshotReader) throws {
        for pair in expect {
            let sides = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            let found = reader.metadata[sides[0]]
            guard found == sides[1] else {
                throw ContentError(
                    "\(sides[0]) is \(found.map { "'\($0.printable)'" } ?? "not in the snapshot"), "
                        + "'\(sides[1])' was expected; use the snapshot of that model"
                )
            }
        }
        if let tokens, tokens > reader.header.tokenCount {
            throw ContentError(
                "has \(reader.header.tokenCount) tokens, \(tokens) were asked for; pass --tokens at most so many"
            )
        }
    }
}

/// Some rows of a layer in full precision.
private struct RestoredPiece: Sendable {
    let layer: KVCacheLayer
    let index: Int
    let firstRow: Int
}
