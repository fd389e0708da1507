internal import ByteStorage
internal import CachePacking

/// The RECIPE section: Formats/snapshot.md.
enum RecipeSection {
    static let textLengths = 1...1024

    static func encode(_ recipe: RecipeRecord) -> [UInt8] {
        var writer = ByteWriter()
        writer.append(UInt32(recipe.stages.count))
        for stage in recipe.stages {
            writer.append(stage.codecNumber)
            writer.appendText(stage.text)
        }
        return writer.bytes
    }

    static func decode(_ reader: inout ByteReader) throws(SnapshotError) -> RecipeRecord {
        let count = try reader.integer(UInt32.self, "the number of stages", in: RecipeRecord.stageCounts)
        var stages: [RecipeRecord.Stage] = []
        for _ in 0..<count {
            let number = try reader.integer(UInt32.self, "a codec number")
            let start = reader.position + MemoryLayout<UInt32>.size
            let text = try reader.text("a stage", lengths: textLengths)
            guard isPrintable(text) else { throw reader.error(at: start, "a stage is not printable ASCII") }
            stages.append(RecipeRecord.Stage(codecNumber: number, text: text))
        }
        try reader.expectEnd()
        return RecipeRecord(stages: stages)
    }

    /// Why a recipe can't be written, or nil.
    static func problem(with recipe: RecipeRecord) -> String? {
        if !RecipeRecord.stageCounts.contains(recipe.stages.count) {
            return "a recipe of \(recipe.stages.count) stages"
        }
        return recipe.stages.first { !textLengths.contains($0.text.utf8.count) || !isPrintable($0.text) }.map {
            "the stage '\($0.text.prefix(40))' is too long or not printable ASCII"
        }
    }

    private static func isPrintable(_ text: String) -> Bool { text.utf8.allSatisfy { (0x20...0x7E).contains($0) } }
}
