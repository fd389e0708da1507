/// What a compressed cache tells of the recipe that it was made by, whether or not a program knows the recipe's codecs.
public struct RecipeRecord: Sendable, Equatable, CustomStringConvertible {
    /// One stage of the recipe.
    public struct Stage: Sendable, Equatable {
        /// The codec's number in files: Formats/snapshot.md, "RECIPE".
        public let codecNumber: UInt32
        /// The stage in canonical text, such as `kivi(bits=2)`.
        public let text: String

        public init(codecNumber: UInt32, text: String) {
            self.codecNumber = codecNumber
            self.text = text
        }
    }

    /// Stages that a snapshot can say: Formats/snapshot.md, "RECIPE" and "Limits".
    public static let stageCounts = 1...8

    /// The stages in order.
    public let stages: [Stage]

    public init(stages: [Stage]) {
        self.stages = stages
    }

    /// The recipe in canonical text, such as `think(keys=0.4)+kivi(bits=2)`.
    public var description: String { stages.map(\.text).joined(separator: "+") }
}
