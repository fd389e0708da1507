/// A whole model against llama.cpp: what was measured, and what is asked of it.
struct ModelFigures {
    /// What a process may take beside the model's file and the cache.
    private static let mostOtherBytes = 150_000_000.0

    let figures: Figures
    let modelByteCount: Int?

    // MARK: - Tables

    var text: String {
        [
            table("tokens per second of reading a prompt", prefills) { Double($0.tokens) / $0.microseconds * 1e6 },
            table("tokens per second of decoding", decodes) { 1e6 / $0.microseconds },
            table("peak memory less file and cache, MB", prefills + decodes) { figure in
                otherBytes(of: figure).map { $0 / 1e6 }
            },
        ].filter { !$0.isEmpty }.joined(separator: "\n\n")
    }

    private var prefills: [Figure] { figures.all.filter { $0.caseName.hasPrefix("prefill:") } }
    private var decodes: [Figure] { figures.all.filter { $0.caseName.hasPrefix("decode:") } }

    private func table(_ title: String, _ all: [Figure], _ value: (Figure) -> Double?) -> String {
        let threads = Set(all.map(\.threads)).sorted()
        var table = MarkdownTable(
            header: [title, "tokens"] + threads.map { "\($0) thread\($0 == 1 ? "" : "s")" } + ["cache, MB"]
        )
        for first in all where first.threads == threads.first {
            let row = threads.map { threads in
                figures.figure(first.caseName, tokens: first.tokens, threads: threads, by: [first.contestant])
            }
            table.add(
                ["\(first.contestant.name): `\(first.caseName)`", first.tokens.grouped]
                    + row.map { $0.flatMap(value)?.short ?? "–" }
                    + [first.byteCount.map { (Double($0) / 1e6).short } ?? "–"]
            )
        }
        return table.isEmpty ? "" : table.text
    }

    private func otherBytes(of figure: Figure) -> Double? {
        guard let peak = figure.peakByteCount, let cache = figure.byteCount, let modelByteCount else { return nil }
        return Double(peak - cache - modelByteCount)
    }

    // MARK: - Goals

    /// Against llama.cpp's fastest way with its float16 cache, of both builds.
    var ratios: [Ratio] {
        let lengths = Set(decodes.map(\.tokens)).sorted()
        let compressed = Case.modelRecipes.dropFirst()
        let prefill = speed(
            "model-prefill",
            "a model reads a prompt, compressed by `\(Case.windowedRecipe)`",
            Case.prefill(Case.windowedRecipe),
            tokens: MeasurementPlan.promptTokens,
            peers: Case.llamaPrefills,
            asked: 0.6
        )
        let decode = compressed.flatMap { recipe in
            lengths.flatMap { tokens in
                speed(
                    "model-decode-\(recipe)",
                    "a model decodes after `\(recipe)`",
                    Case.decode(recipe),
                    tokens: tokens,
                    peers: Case.llamaDecodes,
                    asked: tokens == MeasurementPlan.promptTokens ? 0.7 : 1
                )
            }
        }
        return prefills.isEmpty && decodes.isEmpty ? [] : prefill + decode + memory
    }

    private func speed(
        _ name: String,
        _ title: String,
        _ caseName: String,
        tokens: Int,
        peers: [String],
        asked: Double
    ) -> [Ratio] {
        figures.threadCounts.map { threads in
            let ours = figures.microseconds(caseName, tokens: tokens, threads: threads)
            let theirs = peers.compactMap {
                figures.microseconds($0, tokens: tokens, threads: threads, by: Contestant.llama)
            }.min()
            return Ratio(
                name: "\(name)/\(tokens)/\(threads)",
                title: title + ", against llama.cpp's fastest way",
                tokens: tokens,
                threads: threads,
                value: ours.flatMap { ours in theirs.map { $0 / ours } },
                asked: asked,
                direction: .atLeast
            )
        }
    }

    /// The largest of all peaks, against what it may be.
    private var memory: [Ratio] {
        let peaks = (prefills + decodes).filter { $0.contestant == .ours }.compactMap { figure in
            otherBytes(of: figure).map { (tokens: figure.tokens, bytes: $0) }
        }
        return Set(peaks.map(\.tokens)).sorted().map { tokens in
            let most = peaks.filter { $0.tokens == tokens }.map(\.bytes).max()
            return Ratio(
                name: "model-memory/\(tokens)",
                title: "peak memory beside the model's file and the cache, against 150 MB",
                tokens: tokens,
                threads: nil,
                value: most.map { $0 / Self.mostOtherBytes },
                asked: 1,
                direction: .atMost
            )
        }
    }
}
