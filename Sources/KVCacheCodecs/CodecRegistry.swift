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

    /// A registry of the full-precision codecs and the ones given.
    public init(_ registrations: [CodecRegistration]) {
        self.registrations = FullPrecisionCodec.registrations + registrations
        precondition(
            Set(self.registrations.map(\.number)).count == self.registrations.count
                && Set(self.registrations.map(\.name)).count == self.registrations.count,
            "codec numbers and names must differ"
        )
    }

    /// The codec of a name in recipes.
    public subscript(name name: String) -> CodecRegistration? { registrations.first { $0.name == name } }

    /// A line for each codec: an example and what it does.
    public var help: String {
        let width = registrations.reduce(0) { max($0, $1.example.count) }
        return registrations.map { codec in
            codec.example + String(repeating: " ", count: width - codec.example.count + 2) + codec.help
        }.joined(separator: "\n")
    }
}
