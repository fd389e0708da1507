internal import ArgumentParser
internal import ByteStorage
internal import Foundation
internal import KVCacheEvaluation
internal import LlamaDecoder
internal import ThinkCompress

struct ProfileCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "profile",
        abstract: "Measure a model's profile: how large its queries are, and what errors of its cache cost.",
        discussion: """
            Recipes share bits out by a profile: think(bits=...,values=...), and so the presets and auto(...), gives \
            them to the key channels and the values whose errors cost most. By its queries and output weights \
            think(keys=...,values=...) chooses the channels to keep, also in caches that come without queries; where no \
            errors were measured, think(bits=...) weighs key channels by queries. snapshot, eval and bench take the \
            file as --profile.

            What is measured: the mean squared query of every layer, KV head and channel, over all tokens of the texts; \
            how much the output projection weighs each value channel; and, by noise in one part of the cache at a time, \
            how much the predictions of what follows suffer from errors there. --effort says how finely: \
            0 measures no errors, 1 those of layers, 2 of KV heads, 3 also of bands of rotary pairs. A measurement \
            that was interrupted goes on where it stopped: OUTPUT.journal has what was measured so far. \
            Who may not read the texts may not read the profile either.

            Example:
              think-compress profile --model DIR --text a.txt --text b.txt -o model.profile
              think-compress inspect model.profile
              think-compress snapshot --model DIR --profile model.profile \\
                --prompt-file long.txt -o prompt.tkv --codec "think(bits=2.5,values=2.25)"

            A file called '-' is standard input, or standard output for -o.
            """
    )

    @Option(help: "The model: a directory with config.json, *.safetensors and tokenizer.json, or a GGUF file.")
    var model: String

    @Option(parsing: .upToNextOption, help: "Texts such as the model will read.")
    var text: [String]

    @Option(name: .shortAndLong, help: "The profile to write.")
    var output: String

    @Option(parsing: .unconditional, help: "How finely errors are told apart: 0...3.")
    var effort = ProfileSettings.Effort.heads.rawValue

    @Option(
        parsing: .unconditional,
        help: "Tokens that are read at a time for the queries; by default as many as the model has positions."
    )
    var context: Int?

    @Option(
        parsing: .unconditional,
        help: "Tokens of the prefixes that get noise. (default: 2048, or as many as the model has positions for)"
    )
    var prefix: Int?

    @Option(parsing: .unconditional, help: "Determines the noise: a whole number from 0 on.")
    var seed: UInt64 = 0

    @Flag(help: "Replace the output if it exists.")
    var force = false

    @Flag(help: "Print what was measured as JSON, as inspect does.")
    var json = false

    func validate() throws {
        guard ProfileSettings.Effort(rawValue: effort) != nil else {
            let efforts = ProfileSettings.Effort.allCases.map(\.rawValue)
            throw ValidationError("--effort \(effort): must be \(efforts.min() ?? 0)...\(efforts.max() ?? 0)")
        }
        if let context { try CountOption.check(context, "--context") }
        if let prefix { try CountOption.check(prefix, "--prefix") }
        try StandardStreams.check(texts: text, output: output, json: json)
    }

    func run() async throws {
        let output = try OutputFile(
            self.output,
            replacingExisting: force,
            inputs: text + ModelInput.files(of: model)
        )
        let texts = try text.map { try InputFile($0) }
        var contents: [String] = []
        for file in texts { contents.append(try await ModelInput.text(of: file)) }
        for (file, content) in zip(texts, contents) where content.isEmpty {
            throw InputError(path: file.name, underlying: ContentError("is empty; pass some text"))
        }
        let digests = FileDigests(folder: nil)
        let opened = try LlamaModel(path: model)
        let metadata = try ModelInput.metadata(of: opened)
        let effort = ProfileSettings.Effort(rawValue: effort) ?? .heads
        let positions = opened.configuration.maximumPositions
        let (measurement, settings) = try await about(model, only: [EvaluationError.self]) {
            let settings = ProfileSettings(
                metadata: metadata,
                texts: try texts.map { try digests.digest(path: $0.path) },
                effort: effort,
                context: min(context ?? positions, positions),
                prefix: effort == .queries
                    ? 0 : try prefix ?? ProfileMeasurement.defaultPrefix(of: opened),
                seed: seed
            )
            return try await ModelInput.about(model) {
                let decoder = TransformerDecoder(model: opened)
                return (try ProfileMeasurement(decoder: decoder, texts: contents, settings: settings), settings)
            }
        }
        let access = FileAccess(inputs: texts.map(\.path))
        // Standard output has no name to be found again by.
        let journalPath = output.isStandardOutput ? nil : "\(output.path).journal"
        let journal =
            try journalPath.map { try ProfileJournal(path: $0, access: access, settings: settings) }
            ?? ProfileJournal(settings: settings)
        let layers = try await ModelInput.about(model) {
            try await measurement.measure(journal: journal, progress: Console.progress("measuring"))
        }
        let geometry = opened.configuration.geometry
        let described = metadata.merging(measurement.metadata) { $1 }
        try ModelProfile.write(
            layers,
            geometry: geometry,
            metadata: described,
            to: output.path,
            replacingExisting: output.replacesExisting,
            access: access
        )
        try output.finish()
        // It has done its work; should it stay, it only is in the way of other settings.
        if let journalPath { try? FileManager.default.removeItem(atPath: journalPath) }
        let report = ProfileReport(layers, geometry: geometry, metadata: described, path: output.name)
        if json {
            try Console.printJSON(report)
        } else {
            try output.print(report.text)
        }
    }
}
