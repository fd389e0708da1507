import ThinkCompress

extension SyntheticLayer {
    /// Compresses the layer on the calling thread, as compressing a cache does: decides, then packs.
    public func compressed(by recipe: Recipe) throws -> CompressedLayer {
        try compressed(by: recipe, plans: plans(for: recipe))
    }

    /// Packs the layer by plans that have been decided.
    public func compressed(by recipe: Recipe, plans: [HeadPlan]) throws -> CompressedLayer {
        let shape = BlockShape(
            kvHeads: Self.kvHeads,
            headDimension: Self.headDimension,
            elementType: .float16,
            blockLength: recipe.blockLength,
            residualWindow: recipe.residualWindow
        )
        var result = CompressedLayer(shape: shape, index: 0, plans: plans)
        try result.append(keys: keys, values: values)
        return result
    }

    /// What the recipe decides for each KV head.
    public func plans(for recipe: Recipe) throws -> [HeadPlan] {
        try (0..<Self.kvHeads).map { head in
            var statistics = HeadStatistics(layer: 0, head: head, source: cacheLayer)
            var plan = HeadPlan(headDimension: Self.headDimension, elementType: .float16)
            for step in recipe.steps { try step.stage.decide(&statistics, plan: &plan) }
            return plan
        }
    }
}
