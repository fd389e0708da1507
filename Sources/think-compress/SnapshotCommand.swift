internal import ArgumentParser
internal import ByteStorage
internal import ThinkCompress

struct SnapshotCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshot",
        abstract: "Compress a cache dump and write it as a snapshot.",
        discussion: """
            Recipes are stages joined by '+':
              f16, bf16, f32    as it came, bit for bit
              kivi(bits=2)      KIVI: 2, 4 or 8 bits, or keys= and values=;
                                group=32|64|128, residual=128
              think(keys=0.4)   ThinK: observe=32, recent=32,
                                restore=none|mean, score=queries|keys

            Example:
              think-compress snapshot dump.safetensors -o prompt.tkv \\
                --codec "think(keys=0.4)+kivi(bits=2)"
            """
    )

    @Argument(help: "The cache dump: a safetensors file with layers.N.keys and layers.N.values.")
    var input: String

    @Option(name: .shortAndLong, help: "The snapshot to write.")
    var output: String

    @Option(help: "The recipe to compress by.")
    var codec: String

    @Option(
        help: "A safetensors file with the model's query profile (layers.N.q2), used in place of the dump's queries."
    )
    var profile: String?

    @Option(help: "Pack sections with zstd at this level (1...19): for archives, not to be used in place.")
    var compress: Int?

    @Flag(name: .customLong("no-quality"), help: "Do not measure and store what compression cost.")
    var skipsQuality = false

    @Flag(help: "Replace the output if it exists.")
    var force = false

    @Flag(help: "Print the snapshot's description as JSON, as inspect does.")
    var json = false

    func validate() throws {
        _ = try recipe()
        if let compress, !SnapshotWriter.compressionLevels.contains(compress) {
            let levels = SnapshotWriter.compressionLevels
            throw ValidationError(
                "--compress \(compress): the level must be \(levels.lowerBound)...\(levels.upperBound)"
            )
        }
    }

    private func recipe() throws -> Recipe {
        do {
            return try Recipe(codec)
        } catch {
            throw ValidationError("--codec '\(codec)': \(error)")
        }
    }

    private func readProfiles() async throws -> SafetensorsFile? {
        guard let profile else { return nil }
        return try await about(profile) { try SafetensorsFile(MappedFile.bytes(path: profile)) }
    }

    func run() async throws {
        let recipe = try recipe()
        try AtomicFileWriter.checkDestination(path: output, replacingExisting: force)
        let profiles = try await readProfiles()
        let cache = try await about(input) { try CacheDump.read(path: input, profiles: profiles) }
        let (compressed, quality) = try await about(input) {
            let compressed = try await CompressedCache(
                compressing: cache,
                recipe: recipe,
                progress: Console.progress("compressing")
            )
            if skipsQuality { return (compressed, CompressionQuality?.none) }
            let comparison = try CacheComparison(original: cache, compressed: compressed)
            return (compressed, try await comparison.measure(progress: Console.progress("measuring")))
        }
        let writer = SnapshotWriter(compressionLevel: compress, replacesExisting: force)
        try await about(input) {
            try await writer.write(compressed, quality: quality, to: output, progress: Console.progress("writing"))
        }
        let report = SnapshotReport(try SnapshotReader(path: output, registry: .standard), path: output)
        if json {
            try Console.printJSON(report)
        } else {
            try Console.print(
                "\(output): \(report.tokens.grouped) tokens in \(report.fileBytes.grouped) bytes, "
                    + "\(report.ratio.fixed(2)) times smaller than float16, \(report.bitsPerValue.fixed(2)) bits per value"
            )
            if let quality = report.quality { try Console.print("relative errors: \(quality.text)") }
        }
    }
}
