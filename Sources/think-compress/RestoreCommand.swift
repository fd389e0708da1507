internal import ArgumentParser
internal import ThinkCompress

struct RestoreCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore",
        abstract: "Bring a snapshot back as a cache dump.",
        discussion: """
            Every byte of the snapshot is checked first.

            Example:
              think-compress restore prompt.tkv -o restored.safetensors \\
                --tokens 1024 --expect model.id=my-model

            A file called '-' is standard input, or standard output for -o.
            """
    )

    @Argument(help: "The snapshot.")
    var input: String

    @Option(name: .shortAndLong, help: "The dump to write.")
    var output: String

    @Option(parsing: .unconditional, help: "Restore only the first so many tokens.")
    var tokens: Int?

    @Option(help: "The element type of the dump: F16, BF16 or F32; by default the cache's own.")
    var type: String?

    @Option(
        parsing: .unconditionalSingleValue,
        help: "Refuse a snapshot whose metadata differs: KEY=VALUE. May be repeated."
    )
    var expect: [String] = []

    @Flag(help: "Replace the output if it exists.")
    var force = false

    @Flag(help: "Print what was restored as JSON.")
    var json = false

    func validate() throws {
        if let type, ElementType(name: type.uppercased()) == nil {
            throw ValidationError("--type \(type): must be F16, BF16 or F32")
        }
        if let tokens, tokens < 1 { throw ValidationError("--tokens \(tokens): must be at least 1") }
        if let pair = expect.first(where: { !$0.contains("=") }) {
            throw ValidationError("--expect \(pair): must be KEY=VALUE")
        }
        try StandardStreams.check(inputs: [input], output: output, json: json)
    }

    private struct Report: Encodable {
        let file: String
        let tokens: Int
        let layers: Int
        let kvHeads: Int
        let headDim: Int
        let elementType: String
        let recipe: String
    }

    func run() async throws {
        let output = try OutputFile(self.output, replacingExisting: force, inputs: [input])
        let input = try InputFile(self.input)
        let reader = try await about(input) { try SnapshotReader(path: input.path, registry: .standard) }
        let cache = try await about(input) {
            try checkExpectations(reader)
            try await reader.verify(progress: Console.progress("verifying"))
            return try await reader.cache(verifyingPages: false)
        }
        let count = tokens ?? cache.tokenCount
        let elementType = type.flatMap { ElementType(name: $0.uppercased()) } ?? cache.shape.elementType
        var contents = CacheDumpWriter.Contents()
        contents.tokens = cache.tokens.map { Array($0.prefix(count)) }
        contents.positions = cache.positions.map { Array($0.prefix(count)) }
        contents.profile = cache.profile
        contents.metadata = cache.metadata
        var writer = try CacheDumpWriter(
            path: output.path,
            replacingExisting: output.replacesExisting,
            geometry: cache.geometry,
            tokenCount: count,
            elementType: elementType,
            contents: contents
        )
        let progress = Console.progress("restoring")
        for (index, layer) in cache.layers.enumerated() {
            try await about(input) { try layer.checkRange(tokens: 0..<count, as: elementType) }
            try writer.write(layer.decompress(tokens: 0..<count, as: elementType), index: index)
            try Task.checkCancellation()
            progress?(Double(index + 1) / Double(cache.layers.count))
        }
        try writer.commit()
        let report = Report(
            file: output.name,
            tokens: count,
            layers: cache.geometry.layers,
            kvHeads: cache.geometry.kvHeads,
            headDim: cache.geometry.headDimension,
            elementType: elementType.name,
            recipe: cache.recipe.description
        )
        if json {
            try Console.printJSON(report)
        } else {
            try output.print("\(output.name): \(count.grouped) tokens of \(report.layers) layers, \(elementType.name)")
        }
        try output.finish()
    }

    private func checkExpectations(_ reader: SnapshotReader) throws {
        for pair in expect {
            let sides = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            let found = reader.metadata[sides[0]]
            guard found == sides[1] else {
                throw MismatchError(
                    message: "\(sides[0]) is \(found.map { "'\($0.printable)'" } ?? "not in the snapshot"), "
                        + "'\(sides[1])' was expected; use the snapshot of that model"
                )
            }
        }
        if let tokens, tokens > reader.header.tokenCount {
            throw MismatchError(
                message:
                    "has \(reader.header.tokenCount) tokens, \(tokens) were asked for; pass --tokens at most so many"
            )
        }
    }
}

/// A snapshot that isn't what was asked for.
private struct MismatchError: Error, CustomStringConvertible {
    let message: String
    var description: String { message }
}
