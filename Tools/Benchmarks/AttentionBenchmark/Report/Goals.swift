/// What is asked of the figures: all ratios, in the order in which they are printed.
struct Goals {
    let figures: Figures
    /// Context lengths and thread numbers for which ratios are listed.
    let tokens: [Int]
    let threads: [Int]

    init(figures: Figures) {
        self.figures = figures
        tokens = figures.attentionTokens
        threads = figures.threadCounts
    }

    /// Of the parts that were measured.
    var ratios: [Ratio] {
        let attention = tokens.isEmpty ? [] : self.attention + precisions
        let recipes = MeasurementPlan.recipeDimensions.flatMap(self.recipes)
        let codecs = isMeasured(Case.pack, Case.unpack) ? self.codecs : []
        let snapshots = isMeasured(Case.mapped, Case.opened) ? self.snapshots : []
        let files = isMeasured(Case.verified, Case.openSmall, Case.openLarge) ? self.files : []
        return attention + recipes + codecs + snapshots + files + boundaries
    }

    private func isMeasured(_ caseNames: String...) -> Bool {
        figures.all.contains { caseNames.contains($0.caseName) }
    }

    // MARK: - Attention

    /// What is asked with one thread and with more.
    private typealias Asked = (one: Double, more: Double)

    private var attention: [Ratio] {
        let long = 32768
        let short = tokens.filter { $0 < long }
        let read = attention("plain-read", "a plain read of the same packed bytes, fraction of its speed", (0.5, 0.7)) {
            figures.microseconds(Case.plainRead, tokens: $0, threads: $1)
        }
        let flash16 =
            llama(Case.flashFloat16, "llama.cpp flash attention f16", (25, 20), tokens: short)
            + llama(Case.flashFloat16, "llama.cpp flash attention f16", (60, 50), tokens: tokens.filter { $0 >= long })
        let others =
            llama(Case.flash8, "llama.cpp flash attention q8_0", (45, 40), tokens: short)
            + llama(Case.flash4, "llama.cpp flash attention q4_0", (55, 38), tokens: short)
            + llama(Case.llamaProducts, "llama.cpp's best f16 path (no flash attention)", (15, 13), tokens: tokens)
        let torch = attention("torch-" + Case.torchProducts, "PyTorch bf16 matmul, softmax, matmul", (10, 9)) {
            figures.microseconds(Case.torchProducts, tokens: $0, threads: $1, by: [.torch])
        }
        let perfect = attention("perfect-f16", "a perfect f16 kernel (bytes at plain-read speed, computed)", (3.3, 4.5))
        {
            figures.perfectFloat16(tokens: $0, threads: $1)
        }
        return read + flash16 + others + torch + perfect
    }

    private func llama(_ caseName: String, _ title: String, _ asked: Asked, tokens: [Int]) -> [Ratio] {
        attention("llama-" + caseName, title, asked, tokens: tokens) {
            figures.microseconds(caseName, tokens: $0, threads: $1, by: Contestant.llama)
        }
    }

    /// How many times faster attention is, by default with the headline's recipe, than another.
    private func attention(
        _ name: String,
        _ title: String,
        _ asked: Asked,
        tokens: [Int]? = nil,
        of caseName: String = Case.headline,
        by contestant: Contestant = .ours,
        than other: (_ tokens: Int, _ threads: Int) -> Double?
    ) -> [Ratio] {
        (tokens ?? self.tokens).flatMap { tokens in
            threads.map { threads in
                ratio(
                    name,
                    title,
                    tokens: tokens,
                    threads: threads,
                    of: other(tokens, threads),
                    to: figures.microseconds(caseName, tokens: tokens, threads: threads, by: [contestant]),
                    asked: threads == 1 ? asked.one : asked.more
                )
            }
        }
    }

    private var precisions: [Ratio] {
        let costs = tokens.flatMap { tokens in
            threads.map { threads in
                ratio(
                    "precise-cost",
                    "precise mode's cost against fast",
                    tokens: tokens,
                    threads: threads,
                    of: figures.microseconds(Case.precise, tokens: tokens, threads: threads),
                    to: figures.microseconds(Case.headline, tokens: tokens, threads: threads),
                    asked: threads == 1 ? 1.8 : 1.5,
                    direction: .atMost
                )
            }
        }
        let flash = { (tokens: Int, threads: Int) in
            figures.microseconds(Case.flashFloat16, tokens: tokens, threads: threads, by: Contestant.llama)
        }
        let shortest = Array(tokens.prefix(1))
        return costs
            + attention(
                "4-bit-llama-flash-f16",
                "4 bits (precise), against llama.cpp flash attention f16",
                (18, 13),
                tokens: shortest,
                of: Case.fourBit,
                than: flash
            )
            + attention(
                "avx2-llama-flash-f16",
                "AVX2 alone, against llama.cpp flash attention f16",
                (10, 10),
                tokens: shortest,
                by: .oursAVX2,
                than: flash
            )
    }

    // MARK: - Recipes

    /// Times against the reference's, of a token and of a stored byte.
    private func recipes(dimension: Int) -> [Ratio] {
        let tokens = MeasurementPlan.recipeTokens
        func figure(_ recipe: String) -> Figure? {
            figures.figure(Case.heads(dimension: dimension, recipe), tokens: tokens, threads: 1)
        }
        let reference = figure(Case.windowedRecipe)
        return Case.comparedRecipes.filter { $0.recipe != Case.windowedRecipe }.flatMap { compared -> [Ratio] in
            guard let figure = figure(compared.recipe) else { return [] }
            func time(_ unit: String, of value: Double?, to other: Double?, asked: Double) -> Ratio {
                ratio(
                    "recipe-\(unit)-\(dimension)-\(compared.recipe)",
                    "time for each \(unit) of \(compared.recipe), dimension \(dimension), against \(Case.windowedRecipe)",
                    tokens: tokens,
                    threads: 1,
                    of: value,
                    to: other,
                    asked: asked,
                    direction: .atMost
                )
            }
            let byte = time("byte", of: figure.microsecondsPerByte, to: reference?.microsecondsPerByte, asked: 1)
            guard let mostTime = compared.mostTime else { return [byte] }
            let token = time("token", of: figure.microseconds, to: reference?.microseconds, asked: mostTime)
            return compared.hasFewBytes ? [token] : [token, byte]
        }
    }

    // MARK: - Codecs and files

    private var codecs: [Ratio] {
        let kinds = [
            ("pack", "prune, quantize and pack keys and values, against memcpy of the same f16", Case.pack),
            ("unpack", "unpack to f16, against memcpy of the output", Case.unpack),
        ]
        return kinds.flatMap { name, title, caseName in
            threads.map { threads in
                let tokens = MeasurementPlan.codecTokens
                return ratio(
                    name,
                    title,
                    tokens: tokens,
                    threads: threads,
                    of: figures.microseconds(Case.memcpy, tokens: tokens, threads: threads),
                    to: figures.microseconds(caseName, tokens: tokens, threads: threads),
                    asked: 0.6
                )
            }
        }
    }

    private var snapshots: [Ratio] {
        let kinds = [
            ("mapped", "a step over a mapped snapshot, time against the same from memory", Case.mapped),
            ("opened", "opening a snapshot, mapping it and the first step, against the same from memory", Case.opened),
        ]
        return kinds.flatMap { name, title, caseName in
            threads.map { threads in
                let tokens = MeasurementPlan.snapshotTokens
                return ratio(
                    name,
                    title,
                    tokens: tokens,
                    threads: threads,
                    of: figures.microseconds(caseName, tokens: tokens, threads: threads),
                    to: figures.microseconds(Case.inMemory, tokens: tokens, threads: threads),
                    asked: 1.3,
                    direction: .atMost
                )
            }
        }
    }

    private var files: [Ratio] {
        let threads = threads.last ?? 1
        let tokens = MeasurementPlan.stateTokens
        let verified = figures.microseconds(Case.verified, tokens: tokens, threads: threads)
        let states = [(Case.stateFloat16, 12.0), (Case.state8, 6), (Case.state4, 4)].map { caseName, asked in
            ratio(
                "verified-llama-" + caseName,
                "a snapshot mapped and every byte verified, against llama.cpp loading its \(caseName.dropFirst(6)) state",
                tokens: tokens,
                threads: nil,
                of: figures.microseconds(caseName, tokens: tokens, threads: threads, by: Contestant.llama),
                to: verified,
                asked: asked
            )
        }
        let read = ratio(
            "verified-read",
            "the same, against `read` of the same file into a warm buffer",
            tokens: tokens,
            threads: nil,
            of: figures.microseconds(Case.fileRead, tokens: tokens, threads: threads),
            to: verified,
            asked: 1.5
        )
        let openings = [
            ("open-small", Case.openSmall, MeasurementPlan.smallSnapshotTokens),
            ("open-large", Case.openLarge, MeasurementPlan.largeSnapshotTokens),
        ].map { name, caseName, tokens in
            let figure = figures.figure(caseName, tokens: tokens, threads: threads)
            let size = figure?.byteCount.map { " of \((Double($0) / 1e6).fixed(0)) MB" } ?? ""
            return ratio(
                name,
                "opening a snapshot\(size) without touching data",
                tokens: tokens,
                threads: nil,
                of: figure?.microseconds,
                to: 1000,
                asked: 0.2,
                direction: .atMost,
                unit: .milliseconds
            )
        }
        return states + [read] + openings
    }

    // MARK: - The boundary to C

    private var boundaries: [Ratio] {
        Case.boundaries.flatMap { boundary in
            threads.filter(boundary.isMeasured).flatMap { threads -> [Ratio] in
                let tokens = MeasurementPlan.boundaryTokens
                guard let figure = figures.figure(boundary.caseName, tokens: tokens, threads: threads),
                    let swift = figure.swiftMicroseconds, let added = figure.addedMicroseconds
                else { return [] }
                return [
                    ratio(
                        "\(boundary.caseName)-cost",
                        "\(boundary.title), time against the same in Swift",
                        tokens: tokens,
                        threads: threads,
                        of: swift + added,
                        to: swift,
                        asked: 1.02,
                        direction: .atMost,
                        isStrict: true
                    ),
                    ratio(
                        "\(boundary.caseName)-added",
                        "\(boundary.title), time more than in Swift",
                        tokens: tokens,
                        threads: threads,
                        of: added,
                        to: 1,
                        asked: 2,
                        direction: .atMost,
                        unit: .microseconds,
                        isStrict: true
                    ),
                ]
            }
        }
    }

    private func ratio(
        _ name: String,
        _ title: String,
        tokens: Int,
        threads: Int?,
        of numerator: Double?,
        to denominator: Double?,
        asked: Double,
        direction: Ratio.Direction = .atLeast,
        unit: Ratio.Unit = .times,
        isStrict: Bool = false
    ) -> Ratio {
        Ratio(
            name: ([name, "\(tokens)"] + (threads.map { ["\($0)"] } ?? [])).joined(separator: "/"),
            title: title,
            tokens: tokens,
            threads: threads,
            value: numerator.flatMap { numerator in denominator.map { numerator / $0 } },
            asked: asked,
            direction: direction,
            unit: unit,
            isStrict: isStrict
        )
    }
}
