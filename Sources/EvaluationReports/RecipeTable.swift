/// The recipes' numbers side by side. Columns that no recipe has a number in are left out.
struct RecipeTable {
    private typealias Result = EvaluationReport.RecipeResult

    private struct Column: Sendable {
        let name: String
        let explanation: String
        /// The number as text; nil where it is missing.
        let cell: @Sendable (Result) -> String?
    }

    private let recipes: [Result]

    /// Nil without recipes.
    init?(_ report: EvaluationReport) {
        guard !report.recipes.isEmpty else { return nil }
        recipes = report.recipes
    }

    private static let columns = [
        Column(name: "Times smaller", explanation: "than the cache in float16, the whole snapshot") {
            $0.ratio.map { $0.fixed(2) + "×" }
        },
        Column(name: "Bits per value", explanation: "of the whole snapshot, windows and masks included") {
            $0.bitsPerValue?.fixed(2)
        },
        Column(name: "KL, nats", explanation: "divergence of the next token's distribution, mean per token") {
            $0.kl?.significant(4)
        },
        Column(name: "Same top-1", explanation: "tokens whose likeliest successor is full precision's") {
            $0.top1?.percent
        },
        Column(name: "Perplexity", explanation: "of the continuation, per token") { $0.perplexity?.significant(4) },
        Column(name: "Change", explanation: "of perplexity against full precision") {
            $0.perplexityChange?.signedPercent
        },
        Column(name: "Attention error", explanation: "of the attention output, relative, over all layers") {
            $0.attentionError.map { $0 == 0 ? "0" : $0.fixed(4) }
        },
        Column(name: "Recall, unseen", explanation: "values recalled, the question not seen by the compression") {
            $0.recall?.percent
        },
        Column(name: "Recall, seen", explanation: "values recalled, the question seen by the compression") {
            $0.recallSeen?.percent
        },
        Column(name: "Needles, unseen", explanation: "found, mean; the question not seen by the compression") {
            $0.meanAccuracy(\.accuracy)?.percent
        },
        Column(name: "Needles, seen", explanation: "found, mean; the question seen by the compression") {
            $0.meanAccuracy(\.seenAccuracy)?.percent
        },
    ]

    var section: Markup {
        let columns = Self.columns.filter { column in recipes.contains { column.cell($0) != nil } }
        let header = columns.map { column in
            #"<th scope="col" title="\#(column.explanation)">\#(column.name)</th>"# as Markup
        }
        let rows = recipes.map { recipe in
            let cells = columns.map { "<td>\($0.cell(recipe) ?? "–")</td>" as Markup }
            return #"<tr><th scope="row">\#(recipe.title)</th>\#(cells)</tr>"# as Markup
        }
        let table: Markup = """
            <table class="recipes">
            <thead><tr><th scope="col">Recipe</th>\(header)</tr></thead>
            <tbody>
            \(rows)
            </tbody>
            </table>
            """
        return """
            <section>
            <h2>Recipes</h2>
            \(.scrolling("Recipes", table))
            </section>
            """
    }
}
