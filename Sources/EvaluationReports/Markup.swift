/// A piece of XHTML or SVG. Strings put into its literals are escaped, markup is not: text cannot become markup.
struct Markup: Sendable, Equatable, ExpressibleByStringInterpolation {
    struct StringInterpolation: StringInterpolationProtocol {
        fileprivate var text = ""

        init(literalCapacity: Int, interpolationCount: Int) { text.reserveCapacity(literalCapacity) }

        mutating func appendLiteral(_ literal: String) { text += literal }
        mutating func appendInterpolation(_ string: String) { text += Markup.escaped(string) }
        mutating func appendInterpolation(_ markup: Markup) { text += markup.text }
        mutating func appendInterpolation(_ parts: [Markup]) { text += Markup(lines: parts).text }
        mutating func appendInterpolation(_ number: Int) { text += String(number) }
        /// A coordinate: one digit after the point.
        mutating func appendInterpolation(_ coordinate: Double) { text += coordinate.fixed(1) }
    }

    /// The markup as it stands in a page.
    let text: String

    init(stringLiteral text: String) { self.text = text }

    init(stringInterpolation: StringInterpolation) { text = stringInterpolation.text }

    init(lines: [Markup]) { text = lines.map(\.text).joined(separator: "\n") }

    static let none: Markup = ""

    /// `string` as the content of an element or of a quoted attribute, without what XML has no way to write.
    private static func escaped(_ string: String) -> String {
        var text = ""
        text.reserveCapacity(string.utf8.count)
        for scalar in string.unicodeScalars {
            switch scalar {
            case "&": text += "&amp;"
            case "<": text += "&lt;"
            case ">": text += "&gt;"
            case "\"": text += "&quot;"
            case "'": text += "&#39;"
            case "\t", "\n": text.unicodeScalars.append(scalar)
            case "\0"..<" ", "\u{7F}"..."\u{9F}", "\u{FFFE}", "\u{FFFF}": text += "\u{FFFD}"
            default: text.unicodeScalars.append(scalar)
            }
        }
        return text
    }
}

extension Markup {
    /// A part that scrolls sideways by itself where the page is narrower.
    static func scrolling(_ name: String, _ content: Markup) -> Markup {
        """
        <div class="wide" role="region" tabindex="0" aria-label="\(name)">
        \(content)
        </div>
        """
    }

    /// A drawing with a name for those who don't see it.
    static func drawing(_ name: String, id: String, width: Double, height: Double, _ parts: [Markup]) -> Markup {
        """
        <svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="\(id)" width="\(width)" height="\(height)" \
        viewBox="0 0 \(width) \(height)">
        <title id="\(id)">\(name)</title>
        \(parts)
        </svg>
        """
    }

    /// Text in a drawing.
    ///
    /// - Parameter anchor: what of it is at `x`: its `start`, `middle` or `end`.
    static func label(
        _ text: String,
        x: Double,
        y: Double,
        anchor: String = "middle",
        class name: String = "note"
    ) -> Markup {
        #"<text class="\#(name)" x="\#(x)" y="\#(y)" text-anchor="\#(anchor)">\#(text)</text>"#
    }
}
