internal import Foundation

/// Colours of accuracy from 0 to 1, in steps of 5 %, as classes of the style sheet.
///
/// What was lost stands out of the page, what was found recedes into it, on light and dark pages alike. The way from
/// orange to blue is seen with every kind of colour blindness, and lightness changes in one direction only, so that it
/// is also seen without colours.
enum AccuracyScale {
    /// Steps from nothing to everything.
    static let steps = 20

    private static let light: [UInt32] = [0x7A_2E00, 0xB8_5410, 0xDD_9450, 0xE6_C79E, 0xCD_E7FA]
    private static let dark: [UInt32] = [0xFF_B066, 0xD9_803A, 0x96_613E, 0x4F_4C4F, 0x17_365A]

    /// The class of a cell. Only everything gets the last colour, and only nothing the first.
    static func className(_ accuracy: Double) -> String {
        guard accuracy.isFinite else { return "none" }
        let step = (min(max(accuracy, 0), 1) * Double(steps)).rounded()
        let bounds = (accuracy <= 0 ? 0 : 1)...(accuracy >= 1 ? steps : steps - 1)
        return "a\(min(max(Int(step), bounds.lowerBound), bounds.upperBound))"
    }

    /// Rules for cells on light pages and on paper.
    static let lightRules = rules(light)
    static let darkRules = rules(dark)

    private static func rules(_ stops: [UInt32]) -> Markup {
        let rules = (0...steps).map { step in
            let color = Color(stops, at: Double(step) / Double(steps))
            return ".a\(step){background:\(color.css);color:\(color.ink)}" as Markup
        }
        return Markup(lines: rules)
    }
}

extension AccuracyScale {
    private struct Color {
        /// Red, green and blue, 0 to 255.
        let components: [Double]

        /// The colour at a share of the way along `stops`.
        init(_ stops: [UInt32], at share: Double) {
            let place = share * Double(stops.count - 1)
            let index = min(Int(place), stops.count - 2)
            components = [16, 8, 0].map { shift in
                let low = Double(stops[index] >> shift & 255)
                let high = Double(stops[index + 1] >> shift & 255)
                return (low + (high - low) * (place - Double(index))).rounded()
            }
        }

        var css: String { "rgb(\(components.map { $0.fixed(0) }.joined(separator: ",")))" }

        /// Black or white, whichever contrasts more by WCAG's measure: they are equal at a luminance of 0.179.
        var ink: String {
            let linear = components.map { component in
                let share = component / 255
                return share <= 0.04045 ? share / 12.92 : pow((share + 0.055) / 1.055, 2.4)
            }
            return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179 ? "#000" : "#fff"
        }
    }
}
