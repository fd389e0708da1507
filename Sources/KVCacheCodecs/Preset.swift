/// A recipe that has a name of its own, to be written in its place.
public struct Preset: Sendable {
    public let name: String
    /// The recipe in canonical text.
    public let recipe: String
    /// What it gives and what it costs, in a line, for lists.
    public let help: String

    public init(name: String, recipe: String, help: String) {
        self.name = name
        self.recipe = recipe
        self.help = help
    }
}
