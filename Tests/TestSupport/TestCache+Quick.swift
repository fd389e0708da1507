public import ThinkCompress

extension TestCache {
    /// A cache of the same shape and identity as `make()`'s, in a hundredth of its time: for tests of many shapes.
    ///
    /// Rows are pieces of one long row of normal numbers, so channels are alike.
    public func makeQuickly() throws -> KVCache {
        var generator = SplitMix64(seed: seed)
        func tensor(heads: Int, tokens: Int) -> KVTensor {
            KVTensor.random(
                elementType: elementType,
                heads: heads,
                tokens: tokens,
                headDimension: headDimension,
                using: &generator
            )
        }
        return try KVCache(
            layers: (0..<layers).map { _ in
                KVCacheLayer(
                    keys: tensor(heads: kvHeads, tokens: tokens),
                    values: tensor(heads: kvHeads, tokens: tokens),
                    queries: window > 0 ? tensor(heads: queryHeads, tokens: window) : nil
                )
            },
            tokens: (0..<Int32(tokens)).map { $0 * 7 % 1000 },
            metadata: ["model.id": "test", "rope.theta": "10000.0"]
        )
    }
}

extension KVTensor {
    private static let pool: [Float] = {
        var generator = SplitMix64(seed: 0)
        return (0..<16_411).map { _ in generator.normal() }
    }()
    private static let pools = Dictionary(
        uniqueKeysWithValues: ElementType.allCases.map { type in
            (type, KVTensor(pool, elementType: type, heads: 1, headDimension: pool.count).packedBytes)
        }
    )

    /// Rows that are pieces of one long row of normal numbers.
    package static func random(
        elementType: ElementType,
        heads: Int,
        tokens: Int,
        headDimension: Int,
        using generator: inout SplitMix64
    ) -> KVTensor {
        let pool = pools[elementType] ?? []
        let rowBytes = headDimension * elementType.byteCount
        var bytes: [UInt8] = []
        bytes.reserveCapacity(heads * tokens * rowBytes)
        for _ in 0..<heads * tokens {
            let start = Int.random(in: 0...Self.pool.count - headDimension, using: &generator) * elementType.byteCount
            bytes.append(contentsOf: pool[start..<start + rowBytes])
        }
        return KVTensor(
            bytes: SharedBytes(bytes),
            elementType: elementType,
            heads: heads,
            tokens: tokens,
            headDimension: headDimension
        )
    }

    /// The bytes of all numbers `[heads, tokens, headDimension]`, without gaps.
    public var packedBytes: [UInt8] {
        let rowBytes = headDimension * elementType.byteCount
        return bytes.withUnsafeBytes { buffer in
            var result: [UInt8] = []
            result.reserveCapacity(byteCount)
            for head in 0..<heads {
                for token in 0..<tokens {
                    let start = head * headStride + token * tokenStride
                    result.append(contentsOf: buffer[start..<start + rowBytes])
                }
            }
            return result
        }
    }

    /// Whether both have the same numbers in every bit; quick to fail too, where comparing arrays would print them.
    public func hasSameBits(as other: KVTensor) -> Bool { packedBytes == other.packedBytes }
}
