import Foundation
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

    /// What the recipe decides, also where it looks at a whole cache and at the model's profile: here one that has bases.
    public func preparedPlan(for recipe: Recipe) async throws -> LayerPlan {
        guard recipe.needsWholeCache else { return try plan(for: recipe) }
        let layer = cacheLayer.withProfile(try profile())
        let cache = try await CompressedCache(compressing: KVCache(layers: [layer]), recipe: recipe)
        return cache.layers[0].plan
    }

    /// A profile whose bases leave channels as they are, and say that errors of each count less than those of the one
    /// before: components then get widths in about the shares that a real model's get.
    private func profile() throws -> LayerProfile {
        let dimension = keys.headDimension
        let matrix = try SharedBytes(byteCount: dimension * dimension) { bytes in
            for channel in 0..<dimension {
                bytes.storeBytes(of: Int8(127), toByteOffset: channel * (dimension + 1), as: Int8.self)
            }
        }
        let basis = ComponentBasis(
            matrix: matrix,
            scales: [Float](repeating: 1 / 127, count: dimension),
            variances: [Float](repeating: 1, count: dimension),
            weights: (0..<dimension).map { Float(pow(2, -6.75 * Double($0) / Double(dimension))) }
        )
        let bases = [ComponentBasis](repeating: basis, count: Self.kvHeads)
        return LayerProfile(
            meanSquaredQueries: [Float](repeating: 1, count: Self.kvHeads * dimension),
            bases: LayerBases(archives: [], rotaryFrequencies: [], keys: bases, values: bases)
        )
    }

    /// What the recipe decides.
    public func plan(for recipe: Recipe) throws -> LayerPlan {
        let layer = cacheLayer
        var statistics = LayerStatistics(layer: 0, geometry: try layer.geometry(), source: layer, tokenCount: tokens)
        return try recipe.plan(for: &statistics)
    }
}
