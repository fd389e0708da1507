/// What is measured, in groups whose cases are interleaved.
struct MeasurementPlan {
    enum Part: String, CaseIterable {
        case attention, recipes, snapshots, codecs, queries, boundary
        /// A whole model, which must be given.
        case model
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
        var entries: [Entry]
        /// Whether outputs are compared with float64 too: once is enough, and with long contexts it takes long.
        var checks = false
        /// Whether its cases are those of a whole model, whose peak memory is asked for too.
        var isOnModel = false
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
    static let recipeTokens = 4096
    static let boundaryTokens = 4096
    /// Dimensions of heads with which recipes are compared.
    static let recipeDimensions = [128, 64]
    /// Prompts of a whole model. The longer one leaves room for what is decoded after it in a model of 8,192 positions.
    static let promptTokens = 2048
    static let longPromptTokens = 8128
    /// The shortest text that all cases of a whole model can be measured on.
    static let textTokens = longPromptTokens + Case.decodedTokens + 1

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
        if parts.contains(.recipes) { groups += Self.recipeDimensions.map(recipes) }
        if parts.contains(.snapshots) {
            groups += threadCounts.map(snapshotSteps)
            groups.append(snapshotFiles(threads: threadCounts.last ?? 1))
        }
        if parts.contains(.codecs) { groups += threadCounts.map(codecs) }
        if parts.contains(.queries) { groups += threadCounts.map(queries) }
        if parts.contains(.boundary) { groups += threadCounts.map(boundary) }
        if parts.contains(.model) {
            groups += threadCounts.map(prefill)
            for tokens in isQuick ? [Self.promptTokens] : [Self.promptTokens, Self.longPromptTokens] {
                groups += threadCounts.map { decode(tokens: tokens, threads: $0) }
            }
        }
        return groups.map { group in
            var present = group
            present.entries.removeAll { !contestants.contains($0.contestant) }
            return present
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

    private func recipes(dimension: Int) -> Group {
        Group(
            title: "recipes over \(Self.recipeTokens) tokens, heads of dimension \(dimension)",
            threads: 1,
            entries: Case.comparedRecipes.map {
                let caseName = Case.heads(dimension: dimension, $0.recipe)
                return Entry(contestant: .ours, caseName: caseName, tokens: Self.recipeTokens)
            },
            checks: true
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

    private func boundary(threads: Int) -> Group {
        Group(
            title: "calls through C over \(Self.boundaryTokens) tokens",
            threads: threads,
            entries: Case.boundaries.filter { $0.isMeasured(threads: threads) }
                .map { Entry(contestant: .ours, caseName: $0.caseName, tokens: Self.boundaryTokens) }
        )
    }

    private func prefill(threads: Int) -> Group {
        model(
            "reading a prompt of \(Self.promptTokens) tokens",
            ours: [Case.prefill(Case.windowedRecipe)],
            peers: Case.llamaPrefills,
            tokens: Self.promptTokens,
            threads: threads
        )
    }

    private func decode(tokens: Int, threads: Int) -> Group {
        model(
            "decoding after \(tokens) tokens",
            ours: Case.modelRecipes.map(Case.decode),
            peers: Case.llamaDecodes,
            tokens: tokens,
            threads: threads
        )
    }

    private func model(_ title: String, ours: [String], peers: [String], tokens: Int, threads: Int) -> Group {
        var entries = ours.map { Entry(contestant: .ours, caseName: $0, tokens: tokens) }
        for contestant in Contestant.llama {
            entries += peers.map { Entry(contestant: contestant, caseName: $0, tokens: tokens) }
        }
        return Group(title: title, threads: threads, entries: entries, isOnModel: true)
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
