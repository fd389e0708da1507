internal import EvaluationReports
internal import ThinkCompress

extension EvaluationReport {
    /// The report for a person.
    var table: String {
        let prompts = promptsText.map { ["questions are put \($0)"] } ?? []
        return ([textTables, prompts, recallTables, needleTables].flatMap { $0 }).joined(separator: "\n\n")
    }

    /// What shares of answers are of.
    private static let judgement = "of full precision of all, of others of those that it answers"

    private var textTables: [String] {
        guard let prefixTokens, let continuationTokens, let trials else { return [] }
        let title =
            "\(continuationTokens) tokens after a compressed prefix of \(prefixTokens), \(trials) places of \(text):"
        var table = TextTable(header: [
            "recipe", "ratio", "bits per value", "KL", "same top-1", "perplexity", "change", "attention error",
        ])
        for result in recipes where result.kl != nil {
            table.add([
                result.title, cell(result.ratio) { $0.fixed(2) }, cell(result.bitsPerValue) { $0.fixed(2) },
                cell(result.kl) { $0.fixed(4) }, cell(result.top1, share), cell(result.perplexity) { $0.fixed(2) },
                cell(result.perplexityChange) { ($0 < 0 ? "" : "+") + share($0) },
                cell(result.attentionError) { $0.fixed(4) },
            ])
        }
        return [title, table.text] + layerTables
    }

    /// Errors by layer: layers down, as many recipes across as fit.
    private var layerTables: [String] {
        let measured = recipes.filter { $0.layerAttentionErrors?.isEmpty == false }
        guard !measured.isEmpty else { return [] }
        var table = TextTable(header: ["layer"] + measured.map(\.shortTitle))
        for layer in 0..<(measured.compactMap(\.layerAttentionErrors?.count).max() ?? 0) {
            let errors = measured.map { result in
                result.layerAttentionErrors.flatMap { layer < $0.count ? $0[layer] : nil }
            }
            table.add(["\(layer)"] + errors.map { cell($0) { $0.fixed(4) } })
        }
        return ["error of the attention output by layer:"] + table.texts()
    }

    private var recallTables: [String] {
        guard let recallPairs, let recallTrials else { return [] }
        var table = TextTable(header: ["recipe", "question unseen", "seen"])
        for result in recipes where result.recall != nil {
            table.add([result.title, cell(result.recall, share), cell(result.recallSeen, share)])
        }
        return [
            "one of \(recallPairs) keys and values recalled, \(recallTrials) questions; shares \(Self.judgement):",
            table.text,
        ]
    }

    private var needleTables: [String] {
        guard recipes.contains(where: { $0.needle?.isEmpty == false }) else { return [] }
        let grids = needleGrids
        var tables = grids.map { TextTable(header: ["recipe", "tokens"] + $0.depths.map { share($0) }) }
        var places: [Int: Int] = [:]
        for (index, grid) in grids.enumerated() {
            for context in grid.contexts { places[context] = index }
        }
        for result in recipes {
            for (context, cells) in Dictionary(grouping: result.needle ?? [], by: \.context).sorted(by: {
                $0.key < $1.key
            }) {
                guard let index = places[context] else { continue }
                let found = Dictionary(cells.map { ($0.depth, $0) }) { first, _ in first }
                let row = grids[index].depths.map { depth in
                    cell(found[depth]) {
                        "\(($0.accuracy * 100).fixed(0)) / \(($0.seenAccuracy * 100).fixed(0))"
                    }
                }
                tables[index].add([result.title, "\(context)"] + row)
            }
        }
        return ["needles found, with the question unseen / seen; shares \(Self.judgement):"]
            + tables.flatMap { $0.texts(leading: 2) }
    }

    private func share(_ value: Double) -> String { (value * 100).fixed(1) + " %" }

    private func cell<Value>(_ value: Value?, _ text: (Value) -> String) -> String {
        value.map(text) ?? TextTable.missing
    }
}
