internal import CachePacking
internal import KVCacheCodecs

/// The RECIPE section: Formats/snapshot.md.
enum RecipeSection {
    static func encode(_ recipe: RecipeRecord) -> [UInt8] {
        var writer = ByteWriter()
        writer.append(UInt32(recipe.stages.count))
        for stage in recipe.stages {
            writer.append(stage.codecNumber)
            writer.appendText(stage.parameterText)
        }
        return writer.bytes
    }

    static func decode(_ reader: inout ByteReader, registry: CodecRegistry) throws(SnapshotError) -> Recipe {
        let count = try reader.integer(UInt32.self, "the number of stages", in: 1...RecipeRecord.maximumStages)
        var steps: [Recipe.Step] = []
        for _ in 0..<count {
            let start = reader.position
            let number = try reader.integer(UInt32.self, "a codec number")
            guard let codec = registry[number: number] else {
                let place = reader.error(at: start, "")
                throw SnapshotError(
                    .unknownCodec,
                    at: place.offset,
                    "the recipe names codec \(number), which is unknown"
                )
            }
            let textStart = reader.position
            let text = try reader.text("a stage's parameters", lengths: 0...SnapshotFormat.maximumParameterBytes)
            do {
                let step = try Recipe.Step(codec: codec, parameterText: text)
                guard step.parameterText == text else {
                    throw RecipeError("the parameters '\(text)' are not in canonical form")
                }
                steps.append(step)
            } catch {
                throw reader.error(at: textStart + MemoryLayout<UInt32>.size, "\(error)")
            }
        }
        try reader.expectEnd()
        do {
            return try Recipe(steps: steps)
        } catch {
            throw reader.error(at: 0, "\(error)")
        }
    }
}

extension RecipeRecord.Stage {
    /// What stands in the parentheses of the stage's text.
    fileprivate var parameterText: String {
        String(text.drop { $0 != "(" }.dropFirst().dropLast())
    }
}
