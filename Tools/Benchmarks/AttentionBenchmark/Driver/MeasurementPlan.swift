/// What is measured, in groups whose cases are interleaved.
struct MeasurementPlan {
    enum Part: String, CaseIterable {
        case attention, snapshots, codecs, queries
    }

    /// One case of one contestant.
    struct Entry {
        let contestant: Contestant
        let caseName: String
        let tokens: Int
    }

    struct Group {
        let title: String
        let threads: Int
        let entries: [Entry]
        /// Whether outputs are compared with float64 too: once is enough, and with long contexts it takes long.
        var checks = false
    }

    let parts: Set<Part>
    let isQuick: Bool
    let contestants: [Contestant]
    let processors: Int

    static let snapshotTokens = 4096
    static let stateTokens = 2048
    static let smallSnapshotTokens = 256
    /// Of 32 layers in float16: 1 GB.
    static let largeSnapshotTokens = 8192
    static let codecTokens = 16384
    static let queryTokens = 4096

    /// Thread numbers that all is measured with.
    static func threadCounts(processors: Int) -> [Int] { processors > 1 ? [1, 2] : [1] }

    private var tokenCounts: [Int] { isQuick ? [4096, 8192] : [4096, 8192, 32768] }

    private var queryCounts: [Int] { isQuick ? [2, 8, 32, 128] : [2, 4, 8, 16, 32, 64, 128, 512, 2048] }

    /// All groups, without contestants that aren't there.
    var groups: [Group] {
        let threadCounts = Self.threadCounts(processors: processors)
        var groups: [Group] = []
        if parts.contains(.attention) {
            for threads in threadCounts { groups += tokenCounts.map { attention(tokens: $0, threads: threads) } }
        }
        if parts.contains(.snapshots) {
            groups += threadCounts.map(snapshotSteps)
            groups.append(snapshotFiles(threads: threadCounts.last ?? 1))
        }
        if parts.contains(.codecs) { groups += threadCounts.map(codecs) }
        if parts.contains(.queries) { groups += threadCounts.map(queries) }
        return groups.map { group in
            let present = group.entries.filter { contestants.contains($0.contestant) }
            return Group(title: group.title, threads: group.threads, entries: present, checks: group.checks)
        }
    }

    private func attention(tokens: Int, threads: Int) -> Group {
        var entries = [
            Case.headline, Case.plainRead, Case.precise, Case.sharp, Case.windowed, Case.unpruned, Case.fourBit,
            Case.fourBitFast,
            Case.float16,
        ].map { Entry(contestant: .ours, caseName: $0, tokens: tokens) }
        entries.append(Entry(contestant: .oursAVX2, caseName: Case.headline, tokens: tokens))
        for contestant in Contestant.llama {
            entries += [Case.flashFloat16, Case.flash8, Case.flash4, Case.llamaProducts]
                .map { Entry(contestant: contestant, caseName: $0, tokens: tokens) }
        }
        entries += [Case.torchProducts, Case.torchScaledDotProduct]
            .map { Entry(contestant: .torch, caseName: $0, tokens: tokens) }
        return Group(
            title: "attention over \(tokens) tokens",
            threads: threads,
            entries: entries,
            checks: tokens == tokenCounts.first && threads == 1
        )
    }

    private func snapshotSteps(threads: Int) -> Group {
        Group(
            title: "steps over a snapshot of \(Self.snapshotTokens) tokens",
            threads: threads,
            entries: [Case.inMemory, Case.mapped, Case.opened]
                .map { Entry(contestant: .ours, caseName: $0, tokens: Self.snapshotTokens) },
            checks: threads == 1
        )
    }

    private func snapshotFiles(threads: Int) -> Group {
        var entries = [
            Entry(contestant: .ours, caseName: Case.openSmall, tokens: Self.smallSnapshotTokens),
            Entry(contestant: .ours, caseName: Case.openLarge, tokens: Self.largeSnapshotTokens),
            Entry(contestant: .ours, caseName: Case.verified, tokens: Self.stateTokens),
            Entry(contestant: .ours, caseName: Case.fileRead, tokens: Self.stateTokens),
            Entry(contestant: .ours, caseName: Case.verifiedWithoutWindow, tokens: Self.stateTokens),
        ]
        for contestant in Contestant.llama {
            entries += [Case.stateFloat16, Case.state8, Case.state4]
                .map { Entry(contestant: contestant, caseName: $0, tokens: Self.stateTokens) }
        }
        return Group(title: "opening and loading files", threads: threads, entries: entries)
    }

    private func codecs(threads: Int) -> Group {
        Group(
            title: "packing and unpacking \(Self.codecTokens) tokens on every thread",
            threads: threads,
            entries: [Case.memcpy, Case.pack, Case.unpack]
                .map { Entry(contestant: .ours, caseName: $0, tokens: Self.codecTokens) }
        )
    }

    private func queries(threads: Int) -> Group {
        // With many queries both precisions are matrix products.
        let cases =
            queryCounts.map { Case.queries($0, precision: "fast") }
            + queryCounts.filter { $0 <= 128 }.map { Case.queries($0, precision: "precise") }
        return Group(
            title: "many queries over \(Self.queryTokens) tokens",
            threads: threads,
            entries: cases.map { Entry(contestant: .ours, caseName: $0, tokens: Self.queryTokens) },
            checks: threads == 1
        )
    }
}
