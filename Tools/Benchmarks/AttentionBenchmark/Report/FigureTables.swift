import Foundation

/// All figures, group by group.
struct FigureTables {
    let figures: Figures

    var text: String {
        [attention, recipes, queries, snapshots, codecs, boundaries].filter { !$0.isEmpty }.joined(separator: "\n\n")
    }

    private var attention: String {
        let tokens = figures.attentionTokens
        guard let shortest = tokens.first else { return "" }
        let columns = figures.threadCounts.flatMap { threads in tokens.map { (tokens: $0, threads: threads) } }
        let header = columns.map { "\($0.tokens.grouped), \($0.threads)T" }
        var table = MarkdownTable(header: ["microseconds for each layer"] + header + ["error"])
        let subjects = ordered(figures.all.filter { $0.tokens == shortest && isAttention($0.caseName) })
        for subject in subjects {
            let cells = columns.map { column in
                figures.microseconds(
                    subject.caseName,
                    tokens: column.tokens,
                    threads: column.threads,
                    by: [subject.contestant]
                )?.short ?? "–"
            }
            table.add([name(subject)] + cells + [subject.relativeError.map(scientific) ?? ""])
        }
        let perfect = columns.map { figures.perfectFloat16(tokens: $0.tokens, threads: $0.threads)?.short ?? "–" }
        table.add(["a perfect f16 kernel, computed"] + perfect + [""])
        let bytes = tokens.compactMap { tokens in
            figures.figure(Case.plainRead, tokens: tokens, threads: 1)?.byteCount.map {
                "\((Double($0) * 512 / Double(Case.float16LayerBytes(tokens: tokens))).fixed(1))"
            }
        }
        let speeds = columns.compactMap { figures.readSpeed(tokens: $0.tokens, threads: $0.threads) }
            .map { ($0 / 1e9).fixed(1) }
        return table.text + "\n\nplain read: \(speeds.joined(separator: ", ")) GB/s; bytes of a token of one KV head, "
            + "packed: \(bytes.joined(separator: ", ")), in f16: 512"
    }

    private var recipes: String {
        let all = figures.all.filter { $0.caseName.hasPrefix("heads:") }
        return table("microseconds for each layer, by dimension of heads and recipe", all)
    }

    private var queries: String {
        let all = figures.all.filter { $0.caseName.hasPrefix("queries:") }
        return table("microseconds for each call, \(MeasurementPlan.queryTokens.grouped) tokens", all)
    }

    private var snapshots: String {
        let steps = figures.all.filter { [Case.inMemory, Case.mapped, Case.opened].contains($0.caseName) }
        let files = figures.all.filter { figure in
            ["open:", "verified:", "file:", "state-"].contains(where: figure.caseName.hasPrefix)
        }
        return [
            table("steps over 32 layers, microseconds for each layer", steps),
            table("files of 32 layers, microseconds for the whole", files, hasSpeeds: true),
        ].filter { !$0.isEmpty }.joined(separator: "\n\n")
    }

    private var codecs: String {
        let all = figures.all.filter { [Case.pack, Case.unpack, Case.memcpy].contains($0.caseName) }
        return table("codecs, microseconds for a layer on every thread", all, hasSpeeds: true)
    }

    private var boundaries: String {
        let threads = figures.threadCounts
        let columns = threads.flatMap { ["Swift, \($0)T", "C, \($0)T", "more, \($0)T"] }
        let tokens = MeasurementPlan.boundaryTokens
        var table = MarkdownTable(header: ["microseconds, \(tokens.grouped) tokens"] + columns)
        for boundary in Case.boundaries {
            let found = threads.map { figures.figure(boundary.caseName, tokens: tokens, threads: $0) }
            guard found.contains(where: { $0 != nil }) else { continue }
            let cells = found.flatMap { figure in
                [
                    figure?.swiftMicroseconds?.fixed(1) ?? "–", figure?.microseconds.fixed(1) ?? "–",
                    figure?.addedMicroseconds?.fixed(2) ?? "–",
                ]
            }
            table.add([boundary.title] + cells)
        }
        return table.isEmpty ? "" : table.text
    }

    /// A row for each case, a column for each number of threads; bytes say a speed where all of them are gone through.
    private func table(_ title: String, _ all: [Figure], hasSpeeds: Bool = false) -> String {
        let threads = Set(all.map(\.threads)).sorted()
        let times = threads.map { "\($0) thread\($0 == 1 ? "" : "s")" }
        var table = MarkdownTable(
            header: [title, "tokens"] + times + (hasSpeeds ? times.map { "GB/s, " + $0 } : ["error"])
        )
        for subject in ordered(all) {
            let found = threads.map { threads in
                all.first {
                    $0.caseName == subject.caseName && $0.contestant == subject.contestant
                        && $0.tokens == subject.tokens && $0.threads == threads
                }
            }
            let last =
                hasSpeeds
                ? found.map { figure in figure.flatMap(speed) ?? "" }
                : [found.compactMap { $0?.relativeError }.first.map(scientific) ?? ""]
            table.add([name(subject), subject.tokens.grouped] + found.map { $0?.microseconds.short ?? "–" } + last)
        }
        return table.isEmpty ? "" : table.text
    }

    private func speed(_ figure: Figure) -> String? {
        guard let bytes = figure.byteCount, !figure.caseName.hasPrefix("open:") else { return nil }
        return (Double(bytes) / figure.microseconds / 1e3).fixed(1)
    }

    private func isAttention(_ caseName: String) -> Bool {
        [Case.plainRead, Case.sharp].contains(caseName) || !caseName.contains(":") && !caseName.hasPrefix("state-")
    }

    /// Each case of each contestant once, in the order of measuring.
    private func ordered(_ all: [Figure]) -> [Figure] {
        var seen: Set<String> = []
        return all.filter { seen.insert("\($0.contestant) \($0.caseName) \($0.tokens)").inserted }
    }

    private func name(_ figure: Figure) -> String {
        figure.contestant == .ours ? "`\(figure.caseName)`" : "\(figure.contestant.name): `\(figure.caseName)`"
    }

    private func scientific(_ number: Double) -> String { String(format: "%.1e", number) }
}
