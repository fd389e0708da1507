/// Size against quality: bits per value and KL divergence of each recipe, both logarithmic, and the recipes that no
/// other one beats.
struct QualityPlot {
    private struct Entry {
        /// Counted from 1, in the report's order.
        let number: Int
        let recipe: String
        let bits: Double
        let kl: Double
        var isBest = false

        func isBeaten(by other: Entry) -> Bool {
            other.bits <= bits && other.kl <= kl && (other.bits < bits || other.kl < kl)
        }
    }

    private static let width = 1060.0
    private static let frame = Box(x: 66, y: 74, width: 980, height: 420)
    private static let height = 548.0
    /// Room below the logarithmic axis for what has no logarithm.
    private static let zeroHeight = 44.0

    /// Room for names above the worst, who are many where much is compressed.
    private static let headroom = 34.0

    private let entries: [Entry]
    private let bits: LogarithmicAxis
    private let kl: LogarithmicAxis
    private let hasZero: Bool

    /// Nil without a recipe whose size and divergence are known.
    init?(_ report: EvaluationReport) {
        let all = report.recipes.enumerated().compactMap { index, recipe -> Entry? in
            guard let bits = recipe.bitsPerValue, bits > 0, let kl = recipe.kl else { return nil }
            // Rounding can make a divergence of zero negative.
            return Entry(number: index + 1, recipe: recipe.shortTitle, bits: bits, kl: max(0, kl))
        }
        guard !all.isEmpty else { return nil }
        entries = all.map { entry in
            var entry = entry
            entry.isBest = !all.contains { entry.isBeaten(by: $0) }
            return entry
        }
        bits = LogarithmicAxis(all.map(\.bits), base: .two)
        kl = LogarithmicAxis(all.map(\.kl))
        hasZero = all.contains { $0.kl == 0 }
    }

    var section: Markup {
        let labels = placement.labels()
        let name = "Bits per value against KL divergence, a point for each recipe"
        let parts = [axes, frontLine] + zip(entries, labels).map(mark)
        let drawing = Markup.drawing(name, id: "quality-title", width: Self.width, height: Self.height, parts)
        return """
            <section class="plot">
            <h2>Size against quality</h2>
            <p>Down is nearer to full precision, left is smaller. Filled points are the best: no other recipe is \
            smaller without being farther from full precision, or nearer without being larger. The line goes through \
            them.</p>
            <figure>
            \(.scrolling("Size against quality", drawing))
            \(key(labels))
            </figure>
            </section>
            """
    }

    // MARK: - Places

    private func x(_ bits: Double) -> Double { Self.frame.x + self.bits.share(of: bits) * Self.frame.width }

    /// The end of the logarithmic part.
    private var base: Double { Self.frame.maxY - (hasZero ? Self.zeroHeight : 0) }

    private func y(_ kl: Double) -> Double {
        guard kl > 0 else { return Self.frame.maxY - Self.zeroHeight / 2 }
        return base - self.kl.share(of: kl) * (base - Self.frame.y - Self.headroom)
    }

    private func point(_ entry: Entry) -> Point { Point(x: x(entry.bits), y: y(entry.kl)) }

    /// From few bits to many.
    private var front: [Segment] {
        let points = entries.filter(\.isBest).sorted { ($0.bits, $0.number) < ($1.bits, $1.number) }.map(point)
        return zip(points, points.dropFirst()).map { Segment(from: $0, to: $1) }
    }

    /// Between what has a logarithm and what hasn't.
    private var zeroLine: Segment {
        Segment(from: Point(x: Self.frame.x, y: base), to: Point(x: Self.frame.maxX, y: base))
    }

    private var placement: LabelPlacement {
        LabelPlacement(
            items: entries.map { entry in
                LabelPlacement.Item(
                    point: point(entry),
                    nameWidth: PlotText.width(PlotText.short(entry.recipe)),
                    numberWidth: PlotText.width("\(entry.number)")
                )
            },
            bounds: Self.frame,
            lines: front + (hasZero ? [zeroLine] : []),
            lineHeight: PlotText.lineHeight
        )
    }

    // MARK: - Drawing

    private var axes: Markup {
        let frame = Self.frame
        var grid = ""
        var parts: [Markup] = [
            .label("KL divergence from full precision, nats per token", x: 0, y: 14, anchor: "start", class: "axis"),
            .label("times smaller than float16", x: frame.maxX, y: 40, anchor: "end", class: "axis"),
            .label(
                "bits per value, of the whole snapshot",
                x: frame.maxX,
                y: Self.height - 8,
                anchor: "end",
                class: "axis"
            ),
        ]
        for tick in bits.ticks {
            grid += "M\(x(tick).fixed(1)) \(frame.y.fixed(1))V\(frame.maxY.fixed(1))"
            parts.append(.label(tick.significant(3, trimmed: true), x: x(tick), y: frame.maxY + 18))
        }
        let ratios = bits.inverse(of: 16)
        for tick in ratios.ticks {
            let x = frame.maxX - ratios.share(of: tick) * frame.width
            parts.append(.label(tick.significant(3, trimmed: true) + "×", x: x, y: frame.y - 10))
        }
        for tick in kl.ticks where entries.contains(where: { $0.kl > 0 }) {
            grid += "M\(frame.x.fixed(1)) \(y(tick).fixed(1))H\(frame.maxX.fixed(1))"
            parts.append(.label(tick.significant(3, trimmed: true), x: frame.x - 8, y: y(tick) + 4, anchor: "end"))
        }
        if hasZero {
            parts += [
                .label("0", x: frame.x - 8, y: y(0) + 4, anchor: "end"),
                #"<path class="break" d="M\#(frame.x) \#(base)H\#(frame.maxX)"/>"#,
            ]
        }
        return Markup(lines: [#"<path class="grid" d="\#(grid)"/>"#] + parts)
    }

    /// The front, with dashes where it leaves the logarithmic part.
    private var frontLine: Markup {
        let lines = front.map { line in
            let name = max(line.from.y, line.to.y) > base ? "front toward-zero" : "front"
            return #"<path class="\#(name)" d="M\#(line.from.x) \#(line.from.y)L\#(line.to.x) \#(line.to.y)"/>"#
                as Markup
        }
        return Markup(lines: lines)
    }

    private func mark(_ entry: Entry, _ label: LabelPlacement.Label?) -> Markup {
        let point = point(entry)
        var parts: [Markup] = ["<title>\(summary(entry))</title>"]
        if let leader = label?.leader {
            parts.append(#"<path class="leader" d="M\#(point.x) \#(point.y)L\#(leader.to.x) \#(leader.to.y)"/>"#)
        }
        parts.append(
            #"<circle class="\#(entry.isBest ? "best" : "beaten")" cx="\#(point.x)" cy="\#(point.y)" r="5"/>"#
        )
        if let label {
            let text = label.isNumber ? "\(entry.number)" : PlotText.short(entry.recipe)
            let (x, y) = (label.box.x + label.box.width / 2, label.box.y + PlotText.lineHeight - 4)
            parts.append(.label(text, x: x, y: y, class: entry.isBest ? "recipe strong" : "recipe"))
        }
        return "<g>\(parts)</g>"
    }

    private func summary(_ entry: Entry) -> String {
        "\(entry.recipe): \(entry.bits.fixed(2)) bits per value, KL \(entry.kl.significant(4))"
    }

    /// Names of the points that there was no room to name.
    private func key(_ labels: [LabelPlacement.Label?]) -> Markup {
        let unnamed = zip(entries, labels).filter { $1?.isNumber != false }.map(\.0)
        guard !unnamed.isEmpty else { return .none }
        let rows = unnamed.map { "<li value=\"\($0.number)\">\(summary($0))</li>" as Markup }
        return """
            <figcaption>Recipes shown by number:</figcaption>
            <ol>
            \(rows)
            </ol>
            """
    }
}
