internal import ArgumentParser
internal import ByteStorage
internal import Foundation
internal import KVCacheEvaluation
internal import LlamaDecoder
internal import ThinkCompress

struct ProfileCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "profile",
        abstract: "Measure a model's profile: how large its queries are, what errors of its cache cost, and its bases.",
        discussion: """
            Recipes share bits out by a profile: think(bits=...,values=...), and so the presets and auto(...), gives \
            them to the key channels and the values whose errors cost most. By its queries and output weights \
            think(keys=...,values=...) chooses the channels to keep, also in caches that come without queries; where no \
            errors were measured, think(bits=...) weighs key channels by queries. Other commands take the \
            file as --profile.

            What is measured: the mean squared query of every layer, KV head and channel, over all tokens of the texts; \
            how much the output projection weighs each value channel; and, by noise in one part of the cache at a time, \
            how much the predictions of what follows, and of a part of the text that is read again, suffer from \
            errors there. --effort says how finely: \
            0 measures no errors, 1 those of layers, 2 of KV heads, 3 also of bands of rotary pairs. A measurement \
            that was interrupted goes on where it stopped: OUTPUT.journal has what was measured so far. \
            Who may not read the texts may not read the profile either.

            Then come bases: which components of keys and values vary, weighted by what their errors cost, over six \
            prefixes of the texts. Archives need them. --basis says of which channels together; by default of a \
            layer's, or of a KV head's where those would take more than 2 % of a model's weights in 16 bits. --from \
            takes all else from another profile of the model and makes only bases. --from-dumps makes a profile of \
            cache dumps, without the model and what errors cost: bases weighted by how much channels vary.

            Example:
              think-compress profile --model DIR --text a.txt --text b.txt -o model.profile
              think-compress profile --model DIR --text a.txt --from model.profile -o other.profile
              think-compress inspect model.profile
              think-compress snapshot --model DIR --profile model.profile \\
                --prompt-file long.txt -o prompt.tkv --codec "think(bits=2.5,values=2.25)"

            A file called '-' is standard input, or standard output for -o.
            """
    )

    @Option(help: "The model: a directory with config.json, *.safetensors and tokenizer.json, or a GGUF file.")
    var model: String?

    @Option(parsing: .upToNextOption, help: "Texts such as the model will read.")
    var text: [String] = []

    @Option(name: .shortAndLong, help: "The profile to write.")
    var output: String

    @Option(parsing: .unconditional, help: "How finely errors are told apart: 0...3. (default: 2)")
    var effort: Int?

    @Option(help: "The bases' units: none, head, layer or layers. (default: by the model's size; none with effort 0)")
    var basis: String?

    @Option(help: "A profile of the model, of which all but the bases is taken.")
    var from: String?

    @Option(parsing: .upToNextOption, help: "Cache dumps of one model, in place of the model and texts.")
    var fromDumps: [String] = []

    @Option(
        parsing: .unconditional,
        help: "Tokens that are read at a time for the queries; by default as many as the model has positions."
    )
    var context: Int?

    @Option(
        parsing: .unconditional,
        help: "Tokens of the prefixes. (default: 2048, or as many as the model has positions for)"
    )
    var prefix: Int?

    @Option(parsing: .unconditional, help: "Determines the noise: a whole number from 0 on. (default: 0)")
    var seed: UInt64?

    @Flag(help: "Replace the output if it exists.")
    var force = false

    @Flag(help: "Print what was measured as JSON, as inspect does.")
    var json = false

    private static let noBasis = "none"

    /// Nil where the bases' units are chosen.
    private var unit: BasisUnit? { basis.flatMap { BasisUnit(rawValue: $0) } }

    func validate() throws {
        if let effort, ProfileSettings.Effort(rawValue: effort) == nil {
            let efforts = ProfileSettings.Effort.allCases.map(\.rawValue)
            throw ValidationError("--effort \(effort): must be \(efforts.min() ?? 0)...\(efforts.max() ?? 0)")
        }
        if let basis, basis != Self.noBasis, unit == nil {
            let units = BasisUnit.allCases.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("--basis \(basis): must be \(Self.noBasis) or one of \(units)")
        }
        if let context { try CountOption.check(context, "--context") }
        if let prefix { try CountOption.check(prefix, "--prefix") }
        if fromDumps.isEmpty {
            if model == nil { throw ValidationError("Missing expected argument '--model <model>'") }
            if text.isEmpty { throw ValidationError("Missing expected argument '--text <text> ...'") }
        } else {
            try refuse([("--model", model != nil), ("--text", !text.isEmpty), ("--from", from != nil)], "--from-dumps")
            try refuse([("--prefix", prefix != nil)], "--from-dumps")
        }
        if from != nil || !fromDumps.isEmpty {
            let option = from == nil ? "--from-dumps" : "--from"
            try refuse([("--effort", effort != nil), ("--context", context != nil), ("--seed", seed != nil)], option)
            try refuse([("--basis \(Self.noBasis)", basis == Self.noBasis)], option)
        }
        try StandardStreams.check(texts: text, inputs: [from] + fromDumps, output: output, json: json)
    }

    /// Refuses options that say nothing beside another one.
    private func refuse(_ options: [(name: String, isGiven: Bool)], _ other: String) throws {
        if let option = options.first(where: \.isGiven) {
            throw ValidationError("\(option.name) says nothing with \(other); leave one of them out")
        }
    }

    func run() async throws {
        let inputs = text + [from].compactMap(\.self) + fromDumps + (model.map(ModelInput.files) ?? [])
        let output = try OutputFile(self.output, replacingExisting: force, inputs: inputs)
        if let model {
            try await measure(model, output: output)
        } else {
            try await readDumps(output: output)
        }
    }

    /// Makes a profile of dumps alone.
    private func readDumps(output: OutputFile) async throws {
        let dumps = try fromDumps.map { try InputFile($0) }
        var digests: [String] = []
        for dump in dumps {
            digests.append(try await about(dump) { try FileDigests(folder: nil).digest(path: dump.path) })
        }
        let profile = try await DumpedProfile(
            paths: dumps.map(\.name),
            digests: digests,
            unit: unit,
            progress: Console.progress("measuring")
        ) { index in
            try await about(dumps[index]) { try CacheDump.read(path: dumps[index].path) }
        }
        var notes = ["what errors cost is not known: channels are weighted by how much they vary"]
        if !profile.undoesRotation { notes.append("keys are as they are cached: no rotary embedding is known") }
        if !profile.hasQueries { notes.append("mean squared queries are 1: dumps have no queries") }
        for note in notes { Console.printNote(note) }
        try write(
            profile.layers,
            geometry: profile.geometry,
            metadata: profile.metadata,
            to: output,
            access: FileAccess(inputs: dumps.map(\.path))
        )
    }

    /// Measures a model, all of the profile or bases alone.
    private func measure(_ model: String, output: OutputFile) async throws {
        let texts = try text.map { try InputFile($0) }
        var contents: [String] = []
        for file in texts { contents.append(try await ModelInput.text(of: file)) }
        for (file, content) in zip(texts, contents) where content.isEmpty {
            throw InputError(path: file.name, underlying: ContentError("is empty; pass some text"))
        }
        let digests = try texts.map { try FileDigests(folder: nil).digest(path: $0.path) }
        let former = try await ProfileInput(from)
        let opened = try LlamaModel(path: model)
        let metadata = try ModelInput.metadata(of: opened)
        let geometry = opened.configuration.geometry
        let formerLayers = try await former?.layers(metadata: metadata, geometry: geometry)
        let decoder = TransformerDecoder(model: opened)
        let effort = former == nil ? effort.flatMap { ProfileSettings.Effort(rawValue: $0) } ?? .heads : .queries
        let makesBases = basis == nil ? former != nil || effort > .queries : basis != Self.noBasis
        let positions = opened.configuration.maximumPositions
        let (measurement, bases, settings) = try await about(model, only: [EvaluationError.self]) {
            let needsPrefix = effort > .queries || makesBases
            let prefix = needsPrefix ? try self.prefix ?? ProfileMeasurement.defaultPrefix(of: opened) : 0
            let settings = ProfileSettings(
                metadata: metadata,
                texts: digests,
                effort: effort,
                context: min(context ?? positions, positions),
                prefix: effort == .queries ? 0 : prefix,
                seed: seed ?? 0
            )
            return try await ModelInput.about(model) {
                let measurement =
                    former == nil ? try ProfileMeasurement(decoder: decoder, texts: contents, settings: settings) : nil
                let bases =
                    makesBases
                    ? try BasisMeasurement(
                        decoder: decoder,
                        texts: contents,
                        digests: digests,
                        prefix: prefix,
                        unit: unit
                    ) : nil
                return (measurement, bases, settings)
            }
        }
        let access = FileAccess(inputs: texts.map(\.path) + [from].compactMap(\.self))
        // Standard output has no name to be found again by.
        let journalPath = output.isStandardOutput || measurement == nil ? nil : "\(output.path).journal"
        let journal =
            try journalPath.map { try ProfileJournal(path: $0, access: access, settings: settings) }
            ?? ProfileJournal(settings: settings)
        let progress = Console.progress("measuring")
        let basisCost = Double(bases?.cost ?? 0)
        let measuredShare = 1 - basisCost / max(basisCost + Double(measurement?.cost ?? 0), 1)
        var layers = formerLayers ?? []
        var described = former?.metadata ?? metadata
        try await about(model, only: [EvaluationError.self]) {
            try await ModelInput.about(model) {
                if let measurement {
                    layers = try await measurement.measure(
                        journal: journal,
                        progress: progress?.part(0...measuredShare)
                    )
                    described.merge(measurement.metadata) { $1 }
                }
                if let bases {
                    described.merge(bases.metadata(of: layers)) { $1 }
                    layers = try await bases.adding(to: layers, progress: progress?.part(measuredShare...1))
                }
            }
        }
        try write(layers, geometry: geometry, metadata: described, to: output, access: access)
        // It has done its work; should it stay, it only is in the way of other settings.
        if let journalPath { try? FileManager.default.removeItem(atPath: journalPath) }
    }

    /// Writes the profile, and prints what it says.
    private func write(
        _ layers: [LayerProfile],
        geometry: CacheGeometry,
        metadata: [String: String],
        to output: OutputFile,
        access: FileAccess
    ) throws {
        try ModelProfile.write(
            layers,
            geometry: geometry,
            metadata: metadata,
            to: output.path,
            replacingExisting: output.replacesExisting,
            access: access
        )
        try output.finish()
        let report = ProfileReport(layers, geometry: geometry, metadata: metadata, path: output.name)
        if json {
            try Console.printJSON(report)
        } else {
            try output.print(report.text)
        }
    }
}
