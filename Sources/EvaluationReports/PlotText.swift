/// Recipes' names in drawings: in a font whose characters are all equally wide, so that their room is known.
enum PlotText {
    static let fontSize = 11.0
    static let lineHeight = 15.0
    /// Longer names are cut; the table has them in full.
    private static let maximumLength = 44

    /// The name, cut where it is too long for a drawing.
    static func short(_ name: String) -> String {
        name.count > maximumLength ? name.prefix(maximumLength - 1) + "…" : name
    }

    /// Room for a text. Fonts for code are up to 0.61 of their size wide; Chinese, Japanese and Korean take two places.
    static func width(_ text: String) -> Double {
        let places = text.unicodeScalars.reduce(0) { $0 + ($1.value >= 0x1100 ? 2 : 1) }
        return Double(places) * 0.61 * fontSize + 2
    }
}
