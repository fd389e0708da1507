internal import ArgumentParser
internal import ByteStorage
internal import Foundation
internal import ThinkCompress

/// What all ways of measuring share, and how they run.
struct EvalOptions: ParsableArguments {
    @Option(help: "The model: a directory with config.json, *.safetensors and tokenizer.json.")
    var model: String

    @Option(help: "The text that prompts are cut from; not one that the model was trained on.")
    var text: String

    @Option(help: "Recipes separated by ';'. Full precision is measured in any case.")
    var codecs: String

    @Option(help: "A file that keeps every result, and that an interrupted run goes on from.")
    var results: String?

    @Option(help: "A web page to write, with tables, plots and heat maps of all results.")
    var html: String?

    @Option(help: "Determines the prompts.")
    var seed: UInt64 = 0

    @Flag(help: "Replace the web page if it exists.")
    var force = false

    @Flag(help: "Print the results as JSON.")
    var json = false

    func validate() throws {
        _ = try RecipeOption.recipes(codecs, option: "--codecs")
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
        let content = try ModelInput.text(path: text)
        let opened = try LlamaModel(path: model)
        let metadata = try opened.metadata(producer: ModelInput.producer)
        let evaluator = try await ModelInput.about(model) {
            try Evaluator(
                decoder: TransformerDecoder(model: opened),
                text: try EvaluationText(content, model: opened),
                recipes: try RecipeOption.recipes(codecs, option: "--codecs"),
                metadata: metadata,
                seed: seed
            )
        }
        let subject = unsafe EvaluationJournal.Subject(
            metadata: metadata,
            text: URL(filePath: text).lastPathComponent,
            textBytes: content.utf8.span.bytes,
            seed: seed
        )
        let journal =
            try results.map { try EvaluationJournal(path: $0, access: FileAccess(inputs: [text]), subject: subject) }
            ?? EvaluationJournal(subject: subject)
        if let html {
            // The journal exists by now, so that it can't be replaced under another name.
            let files = [text, results].compactMap { $0 } + ModelInput.files(of: model)
            try AtomicFileWriter.checkDestination(path: html, replacingExisting: force, inputs: files)
        }
        do {
            try await ModelInput.about(model) {
                try await evaluator.run(
                    tasks,
                    trials: trials,
                    journal: journal,
                    progress: Console.progress("measuring")
                )
            }
        } catch let error as EvaluationError where error.path == nil {
            throw InputError(path: text, underlying: error)
        }
        let report = EvaluationReport(journal, recipes: evaluator.recipes.map(\.description), tasks: tasks)
        if let html {
            let writer = try AtomicFileWriter(
                path: html,
                replacingExisting: force,
                access: FileAccess(inputs: [text, results].compactMap { $0 })
            )
            try writer.write(SharedBytes(Array(report.html.utf8)).span, at: 0)
            try writer.commit()
        }
        if json { try Console.printJSON(report) } else { try Console.print(report.table) }
    }
}

extension EvaluationReport {
    /// The report for a person.
    fileprivate var table: String {
        var parts: [String] = []
        if let prefixTokens, let continuationTokens, let trials {
            parts.append(
                "\(continuationTokens) tokens after a compressed prefix of \(prefixTokens), \(trials) places of \(text):"
            )
            var table = TextTable(header: [
                "recipe", "ratio", "bits per value", "KL", "same top-1", "perplexity", "change", "attention error",
            ])
            for result in recipes where result.kl != nil {
                table.add([
                    result.recipe, cell(result.ratio) { $0.fixed(2) }, cell(result.bitsPerValue) { $0.fixed(2) },
                    cell(result.kl) { $0.fixed(4) }, cell(result.top1, share), cell(result.perplexity) { $0.fixed(2) },
                    cell(result.perplexityChange) { ($0 < 0 ? "" : "+") + share($0) },
                    cell(result.attentionError) { $0.fixed(4) },
                ])
            }
            parts.append(table.text)
            var layers = TextTable(
                header: ["attention error"]
                    + (0..<(recipes.compactMap(\.layerAttentionErrors?.count).max() ?? 0)).map { "layer \($0)" }
            )
            for result in recipes {
                guard let errors = result.layerAttentionErrors else { continue }
                layers.add([result.recipe] + errors.map { $0.fixed(4) })
            }
            parts.append(layers.text)
        }
        if let recallPairs, let recallTrials {
            parts.append("one of \(recallPairs) keys and values recalled, \(recallTrials) lists:")
            var table = TextTable(header: ["recipe", "question unseen", "seen"])
            for result in recipes where result.recall != nil {
                table.add([result.recipe, cell(result.recall, share), cell(result.recallSeen, share)])
            }
            parts.append(table.text)
        }
        if recipes.contains(where: { $0.needle != nil }) {
            parts.append("needles found, with the question unseen / seen:")
            var table = TextTable(header: ["recipe", "tokens"] + depths.map { share($0) })
            for result in recipes {
                let cells = result.needle ?? []
                for context in Set(cells.map(\.context)).sorted() {
                    table.add(
                        [result.recipe, "\(context)"]
                            + depths.map { depth in
                                cell(cells.first { $0.context == context && $0.depth == depth }) {
                                    "\(($0.accuracy * 100).fixed(0)) / \(($0.seenAccuracy * 100).fixed(0))"
                                }
                            }
                    )
                }
            }
            parts.append(table.text)
        }
        return parts.joined(separator: "\n\n")
    }

    private var depths: [Double] {
        Set(recipes.flatMap { $0.needle ?? [] }.map(\.depth)).sorted()
    }

    private func share(_ value: Double) -> String { (value * 100).fixed(1) + " %" }

    private func cell<Value>(_ value: Value?, _ text: (Value) -> String) -> String { value.map(text) ?? "-" }
}
