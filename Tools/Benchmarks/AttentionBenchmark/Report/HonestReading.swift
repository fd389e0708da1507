/// What the ratios mean, computed from the figures: which part of them is bytes, and what they do for a whole step.
struct HonestReading {
    /// 4-bit weights of a model of 8 billion parameters, in bytes.
    private static let weightBytes = 4.7e9
    private static let layers = 32.0

    let figures: Figures
    private let columns: [Column]

    /// A context length and a number of threads that attention was measured with.
    private struct Column {
        let tokens: Int
        let threads: Int
        var name: String { "\(tokens.grouped), \(threads)T" }
    }

    /// Who is compared with.
    private struct Peer {
        let name: String
        let caseName: String
        let contestants: [Contestant]
    }

    private static let peers = [
        Peer(name: "llama.cpp flash attention f16", caseName: Case.flashFloat16, contestants: Contestant.llama),
        Peer(name: "llama.cpp f16 without it", caseName: Case.llamaProducts, contestants: Contestant.llama),
        Peer(name: "PyTorch bf16 matmul", caseName: Case.torchProducts, contestants: [.torch]),
    ]

    init(figures: Figures) {
        self.figures = figures
        columns = figures.threadCounts.flatMap { threads in
            figures.attentionTokens.map { Column(tokens: $0, threads: threads) }
        }.filter { column in
            figures.figure(Case.headline, tokens: column.tokens, threads: column.threads) != nil
                && figures.readSpeed(tokens: column.tokens, threads: column.threads) != nil
        }
    }

    var text: String {
        guard let last = columns.last(where: { $0.tokens == columns.first?.tokens }) else { return "" }
        let sections = [
            "Honest reading", bytesText(last), bytesTable, stepText(last), stepTable,
        ]
        return sections.filter { !$0.isEmpty }.joined(separator: "\n\n")
    }

    private func ours(_ caseName: String, _ column: Column) -> Double {
        figures.microseconds(caseName, tokens: column.tokens, threads: column.threads) ?? .nan
    }

    private func time(of peer: Peer, _ column: Column) -> Double? {
        figures.microseconds(peer.caseName, tokens: column.tokens, threads: column.threads, by: peer.contestants)
    }

    /// Peers that were measured.
    private var peers: [Peer] {
        Self.peers.filter { peer in columns.contains { time(of: peer, $0) != nil } }
    }

    // MARK: - Bytes

    /// How many times fewer bytes the packed cache has than one of float16.
    private func byteRatio(_ column: Column) -> Double {
        let read = figures.figure(Case.plainRead, tokens: column.tokens, threads: column.threads)
        return Double(Case.float16LayerBytes(tokens: column.tokens)) / Double(read?.byteCount ?? 0)
    }

    private func bytesText(_ column: Column) -> String {
        let fast = ours(Case.headline, column)
        let share = ours(Case.plainRead, column) / fast
        let limit = byteRatio(column)
        return """
            At \(column.tokens.grouped) tokens with \(column.threads) thread\(column.threads == 1 ? "" : "s"): a token of \
            a KV head takes 512 bytes in f16 and \((512 / limit).fixed(1)) packed, \(limit.fixed(2)) times fewer. That \
            factor is physics, and no kernel can have more of it. This one works at \(share.fixed(2)) of the speed of a \
            plain read, which makes it \((limit * share).fixed(2)) times faster than a perfect kernel on f16 would be. \
            What ratios have beyond bytes is that peers are far from the speed of memory: flash attention reads a KV head \
            once for each of the 4 query heads that share it, and takes softmax token by token and not in vectors. A \
            better peer would take that part away. The recipe's own window of 128 tokens in f16, which most figures \
            leave out, turns \(fast.short) microseconds into \(ours(Case.windowed, column).short).
            """
    }

    private var bytesTable: String {
        guard !peers.isEmpty else { return "" }
        var table = MarkdownTable(header: ["how many times faster = by bytes x by the rest"] + columns.map(\.name))
        for peer in peers {
            table.add(
                [peer.name]
                    + columns.map { column in
                        guard let time = time(of: peer, column) else { return "–" }
                        let ratio = time / ours(Case.headline, column)
                        let limit = byteRatio(column)
                        return "\(ratio.short) = \(limit.fixed(2)) x \((ratio / limit).fixed(2))"
                    }
            )
        }
        return table.text
    }

    // MARK: - A whole step

    /// Milliseconds that reading the weights takes at the plain read's speed.
    private func weights(_ column: Column) -> Double {
        Self.weightBytes / (figures.readSpeed(tokens: column.tokens, threads: column.threads) ?? .nan) * 1e3
    }

    /// Milliseconds of all layers' attention.
    private func attention(_ microseconds: Double) -> Double { Self.layers * microseconds / 1e3 }

    private func stepText(_ column: Column) -> String {
        """
        A whole decode step of an 8B model is computed here, not measured: 4.7 GB of 4-bit weights at the plain read's \
        speed (\(weights(column).fixed(0)) ms at \(column.name)), which no cache makes smaller, and attention of 32 \
        layers, ours with the window. The ratios above are attention's alone; a step gains what is in the last rows.
        """
    }

    private var stepTable: String {
        var table = MarkdownTable(header: ["a step, computed, ms"] + columns.map(\.name))
        table.add(["weights"] + columns.map { weights($0).short })
        table.add(["attention, think-compress"] + columns.map { attention(ours(Case.windowed, $0)).short })
        for peer in peers {
            table.add(
                ["attention, \(peer.name)"]
                    + columns.map { column in time(of: peer, column).map { attention($0).short } ?? "–" }
            )
        }
        for peer in peers {
            table.add(
                ["step, times faster than \(peer.name)"]
                    + columns.map { column in
                        let ours = weights(column) + attention(ours(Case.windowed, column))
                        return time(of: peer, column).map { "\(((weights(column) + attention($0)) / ours).short)x" }
                            ?? "–"
                    }
            )
        }
        return table.text
    }
}
