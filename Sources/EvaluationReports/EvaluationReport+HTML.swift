internal import LlamaDecoder

extension EvaluationReport {
    /// The report as a page for people: one XHTML document, also valid as HTML, that loads nothing and runs no script.
    ///
    /// Sections and columns that nothing was measured for are left out, single missing numbers, and those that aren't
    /// finite, are dashes. However much the report has, the page stays of a size that can be looked at: it shows the
    /// first recipes, and says how many more there are. The same report always gives the same page.
    public var html: String {
        var report = finite
        report.recipes.removeLast(max(recipes.count - Self.maximumRecipesOfPage, 0))
        let sections = [
            RecipeTable(report)?.section, QualityPlot(report)?.section, NeedleMaps(report)?.section,
            LayerErrorPlot(report)?.section,
        ].compactMap { $0 }
        let page: Markup = """
            <!DOCTYPE html>
            <html xmlns="http://www.w3.org/1999/xhtml" lang="en">
            <head>
            <meta charset="utf-8"/>
            <meta name="viewport" content="width=device-width, initial-scale=1"/>
            <meta name="color-scheme" content="light dark"/>
            <title>KV cache compression of \(model)</title>
            <style>
            \(ReportStyle.sheet)
            </style>
            </head>
            <body>
            <main>
            \(report.heading)
            \(omission)
            \(sections.isEmpty ? ["<p>No recipes were measured.</p>"] : sections)
            </main>
            </body>
            </html>

            """
        return page.text
    }

    /// Recipes that tables and drawings of a page can show.
    private static let maximumRecipesOfPage = 100

    private var omission: Markup {
        let count = recipes.count - Self.maximumRecipesOfPage
        guard count > 0 else { return .none }
        return "<p>\(count.grouped) more recipes are not shown here. The results as JSON have them all.</p>"
    }

    private var heading: Markup {
        let facts = facts.map { name, value in "<dt>\(name)</dt><dd>\(value)</dd>" as Markup }
        return """
            <header>
            <p class="kicker">KV cache compression: what recipes save, and what they cost</p>
            <h1>\(model)</h1>
            <dl>
            \(facts)
            </dl>
            <p>\(guide)</p>
            </header>
            """
    }

    private var facts: [(name: String, value: String)] {
        func count(_ number: Int, _ one: String, _ many: String) -> String {
            "\(number.grouped)\u{A0}\(number == 1 ? one : many)"
        }
        let onText = [
            prefixTokens.map { count($0, "token", "tokens") + " compressed" },
            continuationTokens.map { count($0, "token", "tokens") + " after them measured" },
            trials.map { count($0, "place", "places") + " of the text" },
        ].compactMap { $0 }
        let recall = [
            recallPairs.map { count($0, "pair", "pairs") + " of keys and values" },
            recallTrials.map { count($0, "question", "questions") },
        ].compactMap { $0 }
        return [
            ("Text", text), ("Questions", promptsText ?? ""), ("On text", onText.joined(separator: ", ")),
            ("Recall", recall.joined(separator: ", ")),
        ].filter { !$0.1.isEmpty }
    }

    /// How questions were put to the model; nil where none were.
    public var promptsText: String? {
        guard let prompts, recipes.contains(where: { $0.recall != nil || $0.needle?.isEmpty == false }) else {
            return nil
        }
        guard let form = ChatForm(rawValue: prompts), form == .plain else { return "in the form of \(prompts) chats" }
        return "in plain text: the model has no chat template, or none of a form that is known here"
    }

    private var guide: String {
        var text = """
            Full precision comes first: the other recipes are compared with it. Nearer to its numbers is better, and \
            so are fewer bits.
            """
        if recipes.contains(where: { $0.recall != nil || $0.recallSeen != nil || $0.needle?.isEmpty == false }) {
            text += """
                 Needles and recall are asked for twice. Unseen: the compression had not seen the question, as when a \
                cache is kept and asked later. Seen, and apart from it: the question was part of the prompt that was \
                compressed. Of full precision the table says which share of all questions it answers, of the other \
                recipes which share of those that full precision answers.
                """
        }
        return text
    }
}
