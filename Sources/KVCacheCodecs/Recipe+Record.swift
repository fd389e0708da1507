public import CachePacking

extension Recipe {
    /// What a cache that is compressed by the recipe tells of it.
    public var record: RecipeRecord { Self.record(of: steps) }

    /// What a cache that is compressed by steps tells of them.
    static func record(of steps: [Step]) -> RecipeRecord {
        RecipeRecord(stages: steps.map { RecipeRecord.Stage(codecNumber: $0.codec.number, text: $0.text) })
    }

    /// The recipe that a cache was compressed by.
    ///
    /// - Throws: `RecipeError` if the registry doesn't have its codecs, or they take no such stages.
    public init(_ record: RecipeRecord, registry: CodecRegistry) throws(RecipeError) {
        var steps: [Step] = []
        for stage in record.stages {
            let step = try Step(stage.text, registry: registry)
            guard step.codec.number == stage.codecNumber else {
                throw RecipeError("'\(stage.text)' is a stage of codec \(step.codec.number), not \(stage.codecNumber)")
            }
            steps.append(step)
        }
        try self.init(steps: steps)
    }
}
