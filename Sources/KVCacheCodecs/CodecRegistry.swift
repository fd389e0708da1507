/// A codec that recipes and files can name.
public struct CodecRegistration: Sendable {
    /// The codec's number in files: Formats/snapshot.md, "RECIPE".
    public let number: UInt32
    /// The codec's name in recipes.
    public let name: String
    public let role: StageRole
    /// The parameters that the codec has, in canonical order.
    public let parameterNames: [String]
    /// A stage that is right, for messages.
    public let example: String
    /// What the codec does and which parameters it has, in a line, for lists of codecs.
    public let help: String
    /// Makes a stage from parameters, or throws what is wrong with them.
    public let makeStage: @Sendable (StageParameters) throws(RecipeError) -> any CodecStage

    public init(
        number: UInt32,
        name: String,
        role: StageRole,
        parameterNames: [String],
        example: String,
        help: String,
        makeStage: @escaping @Sendable (StageParameters) throws(RecipeError) -> any CodecStage
    ) {
        self.number = number
        self.name = name
        self.role = role
        self.parameterNames = parameterNames
        self.example = example
        self.help = help
        self.makeStage = makeStage
    }
}

/// The codecs that recipes may use, found by name.
public struct CodecRegistry: Sendable {
    public let registrations: [CodecRegistration]
    /// Recipes that have names of their own.
    public let presets: [Preset]

    /// A registry of the full-precision codecs and the ones given.
    public init(_ registrations: [CodecRegistration], presets: [Preset] = []) {
        self.init(all: FullPrecisionCodec.registrations + registrations, presets: presets)
    }

    private init(all registrations: [CodecRegistration], presets: [Preset]) {
        self.registrations = registrations
        self.presets = presets
        precondition(
            Set(self.registrations.map(\.number)).count == self.registrations.count
                && Set(names).count == names.count,
            "codec numbers and names must differ"
        )
    }

    /// The registry with more codecs.
    package func adding(_ more: [CodecRegistration]) -> CodecRegistry {
        CodecRegistry(all: registrations + more, presets: presets)
    }

    /// The names of presets and codecs.
    var names: [String] { presets.map(\.name) + registrations.map(\.name) }

    /// The codec of a name in recipes.
    public subscript(name name: String) -> CodecRegistration? { registrations.first { $0.name == name } }

    /// What a recipe can be written as by the name of a preset, perhaps after a selection of tokens: `balanced`,
    /// `snapkv(keep=0.5)+balanced`; nil if no preset stands for it.
    ///
    /// - Parameter recipe: canonical text.
    public func name(of recipe: String) -> String? {
        preset(of: recipe).map { recipe.dropLast($0.recipe.count) + $0.name }
    }

    /// The preset that a recipe ends with, perhaps after a selection of tokens, or nil.
    func preset(of recipe: String) -> Preset? {
        presets.first { recipe == $0.recipe || recipe.hasSuffix("+\($0.recipe)") }
    }

    /// A line for each preset and each codec: a name or an example, and what it does.
    public var help: String {
        let lines = presets.map { ($0.name, "\($0.help): \($0.recipe)") } + registrations.map { ($0.example, $0.help) }
        let width = lines.reduce(0) { max($0, $1.0.count) }
        return lines.map { name, help in
            name + String(repeating: " ", count: width - name.count + 2) + help
        }.joined(separator: "\n")
    }
}
