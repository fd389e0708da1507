/// The attention output's error layer by layer, a line for each recipe.
struct LayerErrorPlot {
    private struct Line {
        let recipe: String
        let errors: [Double]
        /// Colours are few: later lines use them again, with dashes.
        let style: String

        /// Layers that have an error, and the errors.
        var points: [(layer: Int, error: Double)] {
            errors.enumerated().filter { $1.isFinite }.map { ($0, max(0, $1)) }
        }
    }

    private static let plotWidth = 520.0
    private static let left = 66.0
    private static let top = 34.0
    private static let bottom = 46.0
    private static let zeroHeight = 36.0
    /// Room between the last layer and the names.
    private static let leaderWidth = 34.0
    private static let mostTicks = 12
    /// Layers whose errors have dots of their own on the line.
    private static let mostDots = 256

    private let lines: [Line]
    private let layers: Int
    private let axis: LogarithmicAxis
    private let hasZero: Bool

    /// Nil without errors of layers.
    init?(_ report: EvaluationReport) {
        let measured = report.recipes.filter { $0.layerAttentionErrors?.contains(where: \.isFinite) == true }
        lines = measured.enumerated().map { index, recipe in
            let dashes = index / ReportStyle.lineColors
            let style = "line c\(index % ReportStyle.lineColors)" + (dashes > 0 ? " dashed" : "")
            return Line(recipe: recipe.shortTitle, errors: recipe.layerAttentionErrors ?? [], style: style)
        }
        layers = lines.map(\.errors.count).max() ?? 0
        let errors = lines.flatMap { $0.points.map(\.error) }
        axis = LogarithmicAxis(errors)
        hasZero = errors.contains(0)
        guard !lines.isEmpty else { return nil }
    }

    var section: Markup {
        let name = "Error of the attention output by layer, a line for each recipe"
        let parts = [axes] + zip(lines, labelPlaces).map(drawing)
        let drawing = Markup.drawing(name, id: "layers-title", width: width, height: height, parts)
        return """
            <section class="plot">
            <h2>Attention error by layer</h2>
            <p>Relative error of the attention output, on a logarithmic axis: lower is nearer to full precision.</p>
            <figure>
            \(.scrolling("Attention error by layer", drawing))
            </figure>
            </section>
            """
    }

    // MARK: - Places

    private var right: Double { Self.left + Self.plotWidth }

    private var width: Double {
        right + Self.leaderWidth + (lines.map { PlotText.width(PlotText.short($0.recipe)) }.max() ?? 0) + 4
    }

    /// All names need a line of their own.
    private var plotHeight: Double { max(300, Double(lines.count) * PlotText.lineHeight) }
    private var height: Double { floor + Self.bottom }
    private var floor: Double { Self.top + plotHeight }
    private var base: Double { floor - (hasZero ? Self.zeroHeight : 0) }

    private func x(_ layer: Int) -> Double {
        let inset = 14.0
        let share = layers > 1 ? Double(layer) / Double(layers - 1) : 0.5
        return Self.left + inset + share * (Self.plotWidth - 2 * inset)
    }

    private func y(_ error: Double) -> Double {
        error > 0 ? base - axis.share(of: error) * (base - Self.top) : floor - Self.zeroHeight / 2
    }

    /// Heights of the names: near the lines' ends, but apart from each other.
    private var labelPlaces: [Double] {
        let ends = lines.map { y($0.points.last?.error ?? 0) }
        let order = ends.indices.sorted { (ends[$0], $0) < (ends[$1], $1) }
        var places = ends
        var free = Self.top + PlotText.lineHeight / 2
        for index in order {
            places[index] = max(ends[index], free)
            free = places[index] + PlotText.lineHeight
        }
        var limit = floor - PlotText.lineHeight / 2
        for index in order.reversed() {
            places[index] = min(places[index], limit)
            limit = places[index] - PlotText.lineHeight
        }
        return places
    }

    // MARK: - Drawing

    private var axes: Markup {
        var grid = ""
        var parts: [Markup] = [
            .label("relative error", x: 0, y: 14, anchor: "start", class: "axis"),
            .label("layer", x: right, y: height - 6, anchor: "end", class: "axis"),
        ]
        for tick in axis.ticks where lines.contains(where: { $0.points.contains { $0.error > 0 } }) {
            grid += "M\(Self.left.fixed(1)) \(y(tick).fixed(1))H\(right.fixed(1))"
            parts.append(.label(tick.significant(3, trimmed: true), x: Self.left - 8, y: y(tick) + 4, anchor: "end"))
        }
        for layer in stride(from: 0, to: layers, by: (layers - 1) / Self.mostTicks + 1) {
            grid += "M\(x(layer).fixed(1)) \(Self.top.fixed(1))V\(floor.fixed(1))"
            parts.append(.label("\(layer)", x: x(layer), y: floor + 18))
        }
        if hasZero {
            parts += [
                .label("0", x: Self.left - 8, y: y(0) + 4, anchor: "end"),
                #"<path class="break" d="M\#(Self.left) \#(base)H\#(right)"/>"#,
            ]
        }
        return Markup(lines: [#"<path class="grid" d="\#(grid)"/>"#] + parts)
    }

    private func drawing(_ line: Line, labelPlace: Double) -> Markup {
        let points = line.points.map { Point(x: x($0.layer), y: y($0.error)) }
        let corners = points.map { "\($0.x.fixed(1)),\($0.y.fixed(1))" }.joined(separator: " ")
        let dots = (layers <= Self.mostDots ? points : []).map {
            #"<circle cx="\#($0.x)" cy="\#($0.y)" r="2.5"/>"# as Markup
        }
        let end = points.last ?? Point(x: right, y: labelPlace)
        let label = right + Self.leaderWidth
        return """
            <g class="\(line.style)">
            <title>\(line.recipe)</title>
            <polyline points="\(corners)"/>
            <path class="leader" d="M\(end.x + 5) \(end.y)L\(label - 14) \(labelPlace)H\(label - 4)"/>
            \(dots)
            \(.label(PlotText.short(line.recipe), x: label, y: labelPlace + 4, anchor: "start", class: "recipe"))
            </g>
            """
    }
}
