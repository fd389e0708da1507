import BenchmarkSupport
import ThinkCompress

/// Equal layers in distinct memory, more than the processor's caches hold.
struct RotatingLayers {
    let layers: [CompressedLayer]
    private var position = 0

    init(recipe: Recipe, tokens: Int, headDimension: Int = SyntheticLayer.headDimension) async throws {
        let source = SyntheticLayer(tokens: tokens, headDimension: headDimension)
        let plan = try await source.preparedPlan(for: recipe)
        let first = try source.compressed(by: recipe, plan: plan)
        let count = max((Round.rotatingBytes + first.packedByteCount - 1) / first.packedByteCount, 2)
        layers = try [first] + (1..<count).map { _ in try source.compressed(by: recipe, plan: plan) }
    }

    mutating func next() -> CompressedLayer {
        position = (position + 1) % layers.count
        return layers[position]
    }
}

extension CompressedLayer {
    /// Bytes of blocks and window.
    var packedByteCount: Int {
        blockByteCount + fullPrecisionByteCount
    }
}
