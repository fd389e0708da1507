internal import ByteStorage
internal import CachePacking
public import ComputeRuntime
public import KVCacheModel

extension Recipe {
    /// What is compressed to estimate sizes at the most: KV heads, and tokens, from which on sizes go on in a straight line.
    private static let mostEstimatedHeads = 8
    private static let mostEstimatedTokens = 16384

    /// About how many bits each number of a layer will take, found by compressing random numbers of its shape: blocks, and
    /// rows in full precision.
    ///
    /// Sizes follow from shapes, and hardly from numbers. Of large layers some KV heads and tokens stand for all.
    ///
    /// - Parameter tokenCount: tokens of the layer.
    /// - Throws: `CodecError` if the recipe can't compress such a layer, or there is no memory for one;
    ///   `CancellationError`.
    public func estimatedBitsPerValue(
        of geometry: LayerGeometry,
        tokenCount: Int,
        elementType: ElementType,
        progress: ProgressHandler? = nil
    ) async throws -> Double {
        guard tokenCount > 0, geometry.valuesPerToken > 0 else { return 0 }
        let kvHeads = min(geometry.kvHeads, Self.mostEstimatedHeads)
        let sample = try LayerGeometry(
            // Stages that look at no queries don't mind them.
            queryHeads: kvHeads * max(geometry.queryHeads / geometry.kvHeads, 1),
            kvHeads: kvHeads,
            keyDimension: geometry.keyDimension,
            valueDimension: geometry.valueDimension
        )
        let most = Self.mostEstimatedTokens
        let byteCount: Double
        if tokenCount <= most {
            byteCount = try await sampleByteCount(sample, tokenCount, elementType, progress)
        } else {
            // As many tokens beyond whole pages, so that as many are left over from blocks.
            let pages = BlockShape.pageTokens
            let long = most - pages + (tokenCount - most) % pages
            let short = long - most / 2
            let bytes = try await sampleByteCount(sample, long, elementType, progress?.part(0...0.7))
            let fewer = try await sampleByteCount(sample, short, elementType, progress?.part(0.7...1))
            byteCount = bytes + (bytes - fewer) / Double(long - short) * Double(tokenCount - long)
        }
        return byteCount * 8 / (Double(tokenCount) * Double(sample.valuesPerToken))
    }

    /// The bytes that random numbers of a layer's shape take.
    private func sampleByteCount(
        _ geometry: LayerGeometry,
        _ tokenCount: Int,
        _ elementType: ElementType,
        _ progress: ProgressHandler?
    ) async throws -> Double {
        var generator = SplitMix64(seed: 0)
        func tensor(heads: Int, tokens: Int, dimension: Int) throws -> KVTensor {
            try KVTensor(
                random: elementType,
                heads: heads,
                tokens: tokens,
                headDimension: dimension,
                using: &generator
            )
        }
        let layer = KVCacheLayer(
            keys: try tensor(heads: geometry.kvHeads, tokens: tokenCount, dimension: geometry.keyDimension),
            values: try tensor(heads: geometry.kvHeads, tokens: tokenCount, dimension: geometry.valueDimension),
            queries: try tensor(
                heads: geometry.queryHeads,
                tokens: min(observationWindow, tokenCount),
                dimension: geometry.keyDimension
            )
        )
        let cache = try await CompressedCache(
            compressing: KVCache(layers: [layer]),
            recipe: self,
            progress: progress
        )
        return Double(cache.blockByteCount + cache.fullPrecisionByteCount)
    }
}

extension KVTensor {
    /// Random numbers from 1 to 2, and the same below 0.
    fileprivate init(
        random elementType: ElementType,
        heads: Int,
        tokens: Int,
        headDimension: Int,
        using generator: inout SplitMix64
    ) throws {
        // The bits of 1, and those that a number below 2 may have beside them.
        let (one, fraction): (UInt64, UInt64) =
            switch elementType {
            case .float16: (0x3C00, 0x83FF)
            case .bfloat16: (0x3F80, 0x807F)
            case .float32: (0x3F80_0000, 0x807F_FFFF)
            }
        let width = elementType.byteCount
        let bytes = try SharedBytes(byteCount: heads * tokens * headDimension * width) { bytes in
            for offset in stride(from: 0, to: bytes.byteCount, by: width) {
                let number = one | generator.next() & fraction
                for byte in 0..<width {
                    bytes.storeBytes(
                        of: UInt8(truncatingIfNeeded: number >> (8 * byte)),
                        toByteOffset: offset + byte,
                        as: UInt8.self
                    )
                }
            }
        }
        self.init(bytes: bytes, elementType: elementType, heads: heads, tokens: tokens, headDimension: headDimension)
    }
}
