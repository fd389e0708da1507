import Foundation

/// Time against context length as an SVG: a panel for each number of threads, both axes logarithmic.
///
/// Colours are of middle lightness, so that they show on light and dark pages.
struct TimePlot {
    private struct Series {
        let name: String
        let color: String
        let style: Style
        /// Microseconds for a number of tokens and of threads.
        let time: (_ tokens: Int, _ threads: Int) -> Double?
    }

    private enum Style {
        case ours, peer, limit

        var dashes: String {
            switch self {
            case .ours: ""
            case .peer: #" stroke-dasharray="7 4""#
            case .limit: #" stroke-dasharray="1.5 4""#
            }
        }
    }

    private static let ink = "#7d8590"
    private static let panelWidth = 330.0
    private static let panelHeight = 400.0
    private static let left = 66.0
    private static let top = 48.0
    private static let gap = 26.0
    private static let legendWidth = 288.0
    private static let bottom = 56.0

    private let figures: Figures
    private let tokens: [Int]
    private let threads: [Int]
    private let series: [Series]
    private let range: ClosedRange<Double>

    init(figures: Figures) {
        self.figures = figures
        tokens = figures.attentionTokens
        threads = figures.threadCounts.filter { threads in
            figures.attentionTokens.contains { figures.figure(Case.headline, tokens: $0, threads: threads) != nil }
        }
        let points = (tokens, threads)
        let all = Self.allSeries(of: figures)
        func times(_ series: Series) -> [Double] {
            points.0.flatMap { tokens in points.1.compactMap { series.time(tokens, $0) } }
        }
        // From the slowest, as the lines lie.
        func height(_ series: Series) -> Double {
            let times = times(series)
            return times.reduce(0) { $0 + log($1) } / Double(times.count)
        }
        series = all.filter { !times($0).isEmpty }.sorted { height($0) > height($1) }
        let values = series.flatMap(times)
        let low = Self.steps.last { $0 <= values.min() ?? 1 } ?? 1
        let high = Self.steps.first { $0 >= values.max() ?? 10 } ?? 1e9
        range = low...max(high, low * 2)
    }

    func write(to path: String) throws { try Data(svg.utf8).write(to: URL(filePath: path)) }

    // MARK: - Data

    private static func allSeries(of figures: Figures) -> [Series] {
        func line(
            _ name: String,
            _ color: String,
            _ caseName: String,
            _ contestants: [Contestant] = [.ours],
            style: Style = .ours
        ) -> Series {
            Series(name: name, color: color, style: style) { tokens, threads in
                figures.microseconds(caseName, tokens: tokens, threads: threads, by: contestants)
            }
        }
        let llama = Contestant.llama
        return [
            line("llama.cpp flash attention q4_0", "#c2703d", Case.flash4, llama, style: .peer),
            line("llama.cpp flash attention q8_0", "#b8860b", Case.flash8, llama, style: .peer),
            line("llama.cpp flash attention f16", "#e5484d", Case.flashFloat16, llama, style: .peer),
            line("llama.cpp f16, no flash attention", "#d6409f", Case.llamaProducts, llama, style: .peer),
            line("PyTorch bf16 matmul", "#8b7cf0", Case.torchProducts, [.torch], style: .peer),
            line("PyTorch bf16 SDPA", "#a855c7", Case.torchScaledDotProduct, [.torch], style: .peer),
            line("f16", "#7f8c2e", Case.float16),
            Series(name: "perfect f16 kernel (computed)", color: ink, style: .limit) { tokens, threads in
                figures.perfectFloat16(tokens: tokens, threads: threads)
            },
            line("think(0.4)+kivi(2), AVX2 alone", "#a0714f", Case.headline, [.oursAVX2]),
            line("think(0.4)+kivi(4), precise", "#0f9d8a", Case.fourBit),
            line("think(0.4)+kivi(2), precise", "#2fb4dc", Case.precise),
            line("kivi(2), fast", "#6b9e23", Case.unpruned),
            line("think(0.4)+kivi(2), fast, f16 window", "#2f9e58", Case.windowed),
            line("think(0.4)+kivi(2), fast", "#1f7ae0", Case.headline),
            line("plain read of its bytes", ink, Case.plainRead, style: .limit),
        ]
    }

    // MARK: - Drawing

    /// 1, 2, 5, 10, ...
    private static let steps = (0..<9).flatMap { power in [1, 2, 5].map { $0 * pow(10, Double(power)) } }

    private var width: Double {
        Self.left + Double(threads.count) * (Self.panelWidth + Self.gap) + Self.legendWidth
    }

    private var height: Double { Self.top + Self.panelHeight + Self.bottom }

    private func x(_ tokens: Int, panel: Int) -> Double {
        let inset = 18.0
        let start = Self.left + Double(panel) * (Self.panelWidth + Self.gap) + inset
        let (low, high) = (log(Double(self.tokens.first ?? 1)), log(Double(self.tokens.last ?? 1)))
        let share = high > low ? (log(Double(tokens)) - low) / (high - low) : 0.5
        return start + share * (Self.panelWidth - 2 * inset)
    }

    private func y(_ time: Double) -> Double {
        let share = log(time / range.lowerBound) / log(range.upperBound / range.lowerBound)
        return Self.top + (1 - share) * Self.panelHeight
    }

    private var svg: String {
        var parts = [
            """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(width.fixed(0)) \(height.fixed(0))" \
            font-family="system-ui, sans-serif" font-size="13" fill="\(Self.ink)">
            <title>Attention of one token over one layer, time against context length</title>
            <text x="\(Self.left.fixed(0))" y="18" font-size="14">Attention of one new token over one layer, \
            microseconds (both axes logarithmic)</text>
            """
        ]
        for panel in threads.indices { parts += [axes(panel: panel)] + series.map { line($0, panel: panel) } }
        parts.append(legend)
        return parts.joined(separator: "\n") + "\n</svg>\n"
    }

    private func axes(panel: Int) -> String {
        let start = Self.left + Double(panel) * (Self.panelWidth + Self.gap)
        let end = start + Self.panelWidth
        let base = Self.top + Self.panelHeight
        var parts = [
            text("\(threads[panel]) thread\(threads[panel] == 1 ? "" : "s")", x: (start + end) / 2, y: Self.top - 10),
            text("tokens in the cache", x: (start + end) / 2, y: base + 40),
        ]
        var lines = ""
        for step in Self.steps where range.contains(step) {
            lines += "M\(start.fixed(1)) \(y(step).fixed(1))H\(end.fixed(1))"
            if panel == 0 {
                parts.append(text(Int(step).grouped, x: start - 7, y: y(step) + 4.5, anchor: "end"))
            }
        }
        for count in tokens {
            let place = x(count, panel: panel)
            lines += "M\(place.fixed(1)) \(Self.top.fixed(1))V\(base.fixed(1))"
            parts.append(text(count.grouped, x: place, y: base + 19))
        }
        parts.insert(#"<path d="\#(lines)" stroke="\#(Self.ink)" stroke-opacity="0.25" fill="none"/>"#, at: 0)
        return parts.joined(separator: "\n")
    }

    private func line(_ series: Series, panel: Int) -> String {
        let points = tokens.compactMap { count in
            series.time(count, threads[panel]).map { (x(count, panel: panel), y($0)) }
        }
        let path = points.map { "\($0.0.fixed(1)),\($0.1.fixed(1))" }.joined(separator: " ")
        return drawn(series, points: path) + marks(series, at: points)
    }

    private func drawn(_ series: Series, points: String) -> String {
        #"<polyline points="\#(points)" fill="none" stroke="\#(series.color)" stroke-width="2"\#(series.style.dashes)/>"#
    }

    private func marks(_ series: Series, at points: [(Double, Double)]) -> String {
        points.map { x, y in
            switch series.style {
            case .ours: #"<circle cx="\#(x.fixed(1))" cy="\#(y.fixed(1))" r="3.2" fill="\#(series.color)"/>"#
            case .peer:
                #"<rect x="\#((x - 3).fixed(1))" y="\#((y - 3).fixed(1))" width="6" height="6" fill="\#(series.color)"/>"#
            case .limit: ""
            }
        }.joined()
    }

    private var legend: String {
        let start = Self.left + Double(threads.count) * (Self.panelWidth + Self.gap)
        return series.enumerated().map { index, series in
            let y = Self.top + 10 + Double(index) * 26
            let from = "\(start.fixed(1)),\(y.fixed(1)) \((start + 30).fixed(1)),\(y.fixed(1))"
            return drawn(series, points: from) + marks(series, at: [(start + 15, y)])
                + text(series.name, x: start + 38, y: y + 4.5, anchor: "start")
        }.joined(separator: "\n")
    }

    private func text(_ content: String, x: Double, y: Double, anchor: String = "middle") -> String {
        let place = #"x="\#(x.fixed(1))" y="\#(y.fixed(1))""#
        return anchor == "start"
            ? "<text \(place)>\(content)</text>" : #"<text \#(place) text-anchor="\#(anchor)">\#(content)</text>"#
    }
}
