/// Heat maps of needles found by context length and depth: two for each recipe and grid, all with the same rows, columns
/// and colours.
struct NeedleMaps {
    private typealias Cell = EvaluationReport.NeedleCell

    /// Cells that the maps of a recipe, and those of a page, may have: unseen and seen counted once.
    private static let maximumCells = (ofRecipe: 2500, ofPage: 10_000)
    /// The cells that a table's head and captions are as long as.
    private static let cellsOfHead = 10

    private struct Place: Hashable {
        let context: Int
        let depth: Double
    }

    private struct Map {
        let recipe: EvaluationReport.RecipeResult
        let cells: [Place: Cell]
    }

    /// The maps that are drawn, and the grids of each.
    private let maps: [Map]
    private let grids: [NeedleGrid]
    /// How many there are in all.
    private let mapCount: Int
    private let cellCount: Int

    /// Nil without needles.
    init?(_ report: EvaluationReport) {
        let measured = report.recipes.filter { $0.needle?.isEmpty == false }
        guard !measured.isEmpty else { return nil }
        let all = report.needleGrids
        var room = Self.maximumCells.ofRecipe
        grids = all.filter { grid in
            let needed = grid.cellCount + Self.cellsOfHead
            guard needed <= room else { return false }
            room -= needed
            return true
        }
        let drawn = Self.maximumCells.ofRecipe - room
        maps = measured.prefix(Self.maximumCells.ofPage / max(drawn, 1)).map { recipe in
            let places = (recipe.needle ?? []).map { (Place(context: $0.context, depth: $0.depth), $0) }
            return Map(recipe: recipe, cells: Dictionary(places) { first, _ in first })
        }
        mapCount = measured.count
        cellCount = all.reduce(0) { $0 + $1.cellCount }
    }

    var section: Markup {
        """
        <section>
        <h2>Needles found</h2>
        <p>A sentence hidden in a long text, by the text's length and the depth at which it is hidden: 0\u{A0}% is the \
        beginning. Cells say how many of the needles were found\(trials).</p>
        \(omissions)
        \(legend)
        <div class="maps">
        \(grids.isEmpty ? [] : maps.map(figure))
        </div>
        </section>
        """
    }

    /// What the page has no room for.
    private var omissions: Markup {
        let drawn = grids.reduce(0) { $0 + $1.cellCount }
        var parts: [String] = []
        if drawn < cellCount {
            parts.append("\((cellCount - drawn).grouped) of \(cellCount.grouped) lengths and depths")
        }
        if maps.count < mapCount { parts.append("\((mapCount - maps.count).grouped) of \(mapCount.grouped) recipes") }
        guard !parts.isEmpty else { return .none }
        return "<p>Not drawn here: \(parts.joined(separator: ", ")). The results as JSON have them all.</p>"
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
        let name = map.recipe.title
        let pairs = grids.map { grid in
            """
            <div class="pair">
            \(table(of: map, grid, "Question unseen", \.accuracy))
            \(table(of: map, grid, "Question seen", \.seenAccuracy))
            </div>
            """ as Markup
        }
        return """
            <figure>
            <figcaption>\(name)</figcaption>
            \(.scrolling("Needles found with \(name)", Markup(lines: pairs)))
            </figure>
            """
    }

    private func table(
        of map: Map,
        _ grid: NeedleGrid,
        _ title: String,
        _ accuracy: KeyPath<Cell, Double>
    ) -> Markup {
        let (contexts, depths) = (grid.contexts, grid.depths)
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
