import ThinkCompress

extension SyntheticLayer {
    /// Compresses the layer on the calling thread, as compressing a cache does: decides, then packs.
    public func compressed(by recipe: Recipe) throws -> CompressedLayer {
        try compressed(by: recipe, plan: plan(for: recipe))
    }

    /// Packs the layer by a plan that has been decided.
    public func compressed(by recipe: Recipe, plan: LayerPlan) throws -> CompressedLayer {
        let shape = BlockShape(
            elementType: .float16,
            blockLength: recipe.blockLength,
            residualWindow: recipe.residualWindow
        )
        var result = CompressedLayer(shape: shape, index: 0, plan: plan)
        try result.append(keys: keys, values: values)
        return result
    }

    /// What the recipe decides.
    public func plan(for recipe: Recipe) throws -> LayerPlan {
        let layer = cacheLayer
        var statistics = LayerStatistics(layer: 0, geometry: try layer.geometry(), source: layer, tokenCount: tokens)
        return try recipe.plan(for: &statistics)
    }
}
