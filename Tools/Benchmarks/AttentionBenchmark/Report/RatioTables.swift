/// Ratios against what is asked of them.
struct RatioTables {
    let ratios: [Ratio]

    var text: String {
        [byThreads, others, summary].filter { !$0.isEmpty }.joined(separator: "\n\n")
    }

    private var byThreads: String {
        let threads = Set(ratios.compactMap(\.threads)).sorted()
        let header = threads.flatMap { ["\($0) thread\($0 == 1 ? "" : "s")", "asked", ""] }
        var table = MarkdownTable(header: ["against", "tokens"] + header)
        var seen: Set<String> = []
        for ratio in ratios where ratio.threads != nil && seen.insert("\(ratio.title) \(ratio.tokens)").inserted {
            let row = threads.map { count in
                ratios.first { $0.title == ratio.title && $0.tokens == ratio.tokens && $0.threads == count }
            }
            guard row.contains(where: { $0?.value != nil }) else { continue }
            let cells = row.flatMap { [$0?.valueText ?? "–", $0?.askedText ?? "", $0?.verdict ?? ""] }
            table.add([ratio.title, ratio.tokens.grouped] + cells)
        }
        return table.isEmpty ? "" : table.text
    }

    private var others: String {
        var table = MarkdownTable(header: ["files and memory, all processors", "tokens", "measured", "asked", ""])
        for ratio in ratios where ratio.threads == nil && ratio.value != nil {
            table.add([ratio.title, ratio.tokens.grouped, ratio.valueText, ratio.askedText, ratio.verdict])
        }
        return table.isEmpty ? "" : table.text
    }

    private var summary: String {
        let met = ratios.filter { $0.isMet == true }.count
        let short = ratios.filter { $0.isMet == false }
        let unmeasured = Set(ratios.filter { $0.value == nil }.map(\.title))
        var lines = ["\(met) of \(met + short.count) ratios that were measured are met."]
        lines += short.map { "- not met: \($0.name): \($0.valueText), asked \($0.askedText)" }
        lines += unmeasured.sorted().map { "- not measured everywhere: \($0)" }
        return lines.joined(separator: "\n")
    }
}
