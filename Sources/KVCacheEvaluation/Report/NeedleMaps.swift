/// Heat maps of needles found by context length and depth: two for each recipe, all with the same rows, columns and
/// colours.
struct NeedleMaps {
    private typealias Cell = EvaluationReport.NeedleCell

    private struct Place: Hashable {
        let context: Int
        let depth: Double
    }

    private struct Map {
        let recipe: EvaluationReport.RecipeResult
        let cells: [Place: Cell]
    }

    private let maps: [Map]
    private let contexts: [Int]
    private let depths: [Double]

    /// Nil without needles.
    init?(_ report: EvaluationReport) {
        maps = report.recipes.compactMap { recipe in
            guard let cells = recipe.needle, !cells.isEmpty else { return nil }
            let places = cells.map { (Place(context: $0.context, depth: $0.depth), $0) }
            return Map(recipe: recipe, cells: Dictionary(places) { first, _ in first })
        }
        let places = maps.flatMap(\.cells.keys)
        contexts = Set(places.map(\.context)).sorted()
        depths = Set(places.map(\.depth)).sorted()
        guard !maps.isEmpty else { return nil }
    }

    var section: Markup {
        """
        <section>
        <h2>Needles found</h2>
        <p>A sentence hidden in a long text, by the text's length and the depth at which it is hidden: 0\u{A0}% is the \
        beginning. Cells say how many of the needles were found\(trials).</p>
        \(legend)
        <div class="maps">
        \(maps.map(figure))
        </div>
        </section>
        """
    }

    /// How many needles a cell has, if that can be said in a word.
    private var trials: String {
        let counts = Set(maps.flatMap { $0.cells.values.map(\.trials) })
        guard let count = counts.first, counts.count == 1 else { return "" }
        return ", of \(count.grouped) in each cell"
    }

    private var legend: Markup {
        let steps = (0...AccuracyScale.steps).map { step in
            let share = Double(step) / Double(AccuracyScale.steps)
            return #"<span class="\#(AccuracyScale.className(share))"></span>"# as Markup
        }
        return """
            <div class="legend" role="img" aria-label="Colours from nothing found to everything found">
            <span>0\u{A0}% found</span>
            <div class="scale">\(steps)</div>
            <span>100\u{A0}% found</span>
            </div>
            """
    }

    private func figure(_ map: Map) -> Markup {
        let name = map.recipe.recipe
        let pair: Markup = """
            <div class="pair">
            \(table(of: map, "Question unseen", \.accuracy))
            \(table(of: map, "Question seen", \.seenAccuracy))
            </div>
            """
        return """
            <figure>
            <figcaption>\(name)</figcaption>
            \(.scrolling("Needles found with \(name)", pair))
            </figure>
            """
    }

    private func table(of map: Map, _ title: String, _ accuracy: KeyPath<Cell, Double>) -> Markup {
        let columns = contexts.map { #"<th scope="col">\#($0.grouped)</th>"# as Markup }
        let rows = depths.map { depth in
            let cells = contexts.map { cell(map.cells[Place(context: $0, depth: depth)], accuracy) }
            return #"<tr><th scope="row">\#(depth.percent(digits: 0))</th>\#(cells)</tr>"# as Markup
        }
        let mean = map.recipe.meanAccuracy(accuracy).map { ": \($0.percent)" } ?? ""
        return """
            <table class="heat">
            <caption>\(title)\(mean)</caption>
            <thead>
            <tr><th scope="col" rowspan="2">depth</th><th scope="colgroup" colspan="\(contexts.count)">tokens</th></tr>
            <tr>\(columns)</tr>
            </thead>
            <tbody>
            \(rows)
            </tbody>
            </table>
            """
    }

    private func cell(_ cell: Cell?, _ accuracy: KeyPath<Cell, Double>) -> Markup {
        guard let share = cell?[keyPath: accuracy], share.isFinite else { return #"<td class="none">–</td>"# }
        return #"<td class="\#(AccuracyScale.className(share))">\#(share.wholePercent)</td>"#
    }
}
