internal import ArgumentParser
internal import ByteStorage
internal import EvaluationReports
internal import Foundation
internal import KVCacheEvaluation
internal import LlamaDecoder
internal import ThinkCompress

/// What all ways of measuring share, and how they run.
struct EvalOptions: ParsableArguments {
    @Option(help: "The model: a directory with config.json, *.safetensors and tokenizer.json, or a GGUF file.")
    var model: String

    @Option(help: "The text that prompts are cut from; not one that the model was trained on.")
    var text: String

    @Option(
        help:
            "Recipes separated by ';', as snapshot takes them, and peers: llamacpp(type=q8_0), llamacpp(type=q4_0). Full precision is measured in any case."
    )
    var codecs: String

    @Option(help: ProfileInput.help)
    var profile: String?

    @Option(help: "A file that keeps every result, and that an interrupted run goes on from.")
    var results: String?

    @Option(help: "A web page to write, with tables, plots and heat maps of the results.")
    var html: String?

    @Option(parsing: .unconditional, help: "Determines the prompts: a whole number from 0 on.")
    var seed: UInt64 = 0

    @Flag(help: "Replace the web page if it exists.")
    var force = false

    @Flag(help: "Print the results as JSON.")
    var json = false

    func validate() throws {
        _ = try RecipeOption.recipes(codecs, option: "--codecs", registry: .evaluation)
        if results == StandardStreams.name {
            throw ValidationError("--results -: an interrupted run goes on from its results, so they need a file")
        }
        try StandardStreams.check(
            texts: [text],
            inputs: [profile],
            output: html,
            option: "--html",
            isText: true,
            json: json
        )
    }

    /// Numbers separated by commas.
    static func list<Number>(_ text: String, _ name: String, _ number: (String) -> Number?) throws -> [Number] {
        try text.split(separator: ",", omittingEmptySubsequences: false).map { part in
            guard let value = number(part.trimmingCharacters(in: .whitespaces)) else {
                throw ValidationError("\(name) '\(text)': '\(part)' is out of range or no number")
            }
            return value
        }
    }

    /// Makes the trials that are missing and reports.
    func run(_ tasks: [EvaluationTask], trials: Int) async throws {
        let inputs = [text, profile, results].compactMap { $0 } + ModelInput.files(of: model)
        let page = try html.map { try OutputFile($0, replacingExisting: force, inputs: inputs) }
        if let results { try EvaluationJournal.checkDestination(path: results) }
        let source = try InputFile(text)
        let content = try await ModelInput.text(of: source)
        let profile = try await ProfileInput(profile)
        let opened = try LlamaModel(path: model)
        let metadata = try ModelInput.metadata(of: opened)
        let layers = try await profile?.layers(metadata: metadata, geometry: opened.configuration.geometry)
        let text = try await ModelInput.about(model) { try EvaluationText(content, model: opened) }
        let evaluator = try await ModelInput.about(model) {
            try Evaluator(
                decoder: TransformerDecoder(model: opened),
                text: text,
                recipes: try RecipeOption.recipes(codecs, option: "--codecs", registry: .evaluation),
                metadata: metadata,
                profile: layers,
                seed: seed
            )
        }
        let subject = unsafe EvaluationJournal.Subject(
            metadata: metadata,
            text: URL(filePath: source.name).lastPathComponent,
            textBytes: content.utf8.span.bytes,
            prompts: text.form,
            seed: seed,
            profile: try await profile?.digest()
        )
        let journal =
            try results.map {
                try EvaluationJournal(path: $0, access: FileAccess(inputs: [source.path]), subject: subject)
            }
            ?? EvaluationJournal(subject: subject)
        if let page {
            // The journal exists by now, so that it can't be replaced under another name.
            try AtomicFileWriter.checkDestination(
                path: page.path,
                replacingExisting: page.replacesExisting,
                inputs: inputs
            )
        }
        try await about(source.name, only: [EvaluationError.self]) {
            try await ModelInput.about(model) {
                try await evaluator.run(
                    tasks,
                    trials: trials,
                    journal: journal,
                    progress: Console.progress("measuring")
                )
            }
        }
        let measured = evaluator.recipes.map(\.description)
        let report = EvaluationReport(
            journal,
            recipes: measured,
            names: Dictionary(measured.compactMap { text in CodecRegistry.standard.name(of: text).map { (text, $0) } })
            { one, _ in one },
            tasks: tasks
        )
        if let page {
            let writer = try AtomicFileWriter(
                path: page.path,
                replacingExisting: page.replacesExisting,
                access: FileAccess(inputs: [source.path, results].compactMap { $0 })
            )
            try writer.write(SharedBytes(Array(report.html.utf8)).span, at: 0)
            try writer.commit()
            try page.finish()
        }
        if json {
            try Console.printJSON(report)
        } else if let page {
            try page.print(report.table)
        } else {
            try Console.print(report.table)
        }
    }
}

extension CodecRegistry {
    /// The codecs of this package, and what they are measured beside.
    static let evaluation = standard.adding([PeerCodec.registration])
}
