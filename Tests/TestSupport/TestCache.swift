public import ThinkCompress

extension KVTensor {
    /// A tensor of numbers `[heads, tokens, headDimension]`, rounded to the element type.
    public init(_ numbers: [Float], elementType: ElementType, heads: Int, headDimension: Int) {
        let bytes = numbers.flatMap { number -> [UInt8] in
            let bits: UInt32 =
                switch elementType {
                case .float16: UInt32(Float16(number).bitPattern)
                case .bfloat16: number.bfloat16Bits
                case .float32: number.bitPattern
                }
            return (0..<elementType.byteCount).map { UInt8(truncatingIfNeeded: bits >> UInt32(8 * $0)) }
        }
        self.init(
            bytes: SharedBytes(bytes),
            elementType: elementType,
            heads: heads,
            tokens: numbers.count / heads / headDimension,
            headDimension: headDimension
        )
    }

    /// All numbers `[heads, tokens, headDimension]`.
    public var numbers: [Float] {
        let size = elementType.byteCount
        var result: [Float] = []
        result.reserveCapacity(heads * tokens * headDimension)
        for head in 0..<heads {
            for token in 0..<tokens {
                for channel in 0..<headDimension {
                    let offset = head * headStride + token * tokenStride + channel * size
                    var bits: UInt32 = 0
                    for index in 0..<size { bits |= UInt32(bytes.byte(at: offset + index)) << UInt32(8 * index) }
                    let number: Float =
                        switch elementType {
                        case .float16: Float(Float16(bitPattern: UInt16(bits)))
                        case .bfloat16: Float(bitPattern: bits << 16)
                        case .float32: Float(bitPattern: bits)
                        }
                    result.append(number)
                }
            }
        }
        return result
    }
}

extension Float {
    /// Rounded to the nearest bfloat16, ties to even; for finite numbers.
    fileprivate var bfloat16Bits: UInt32 { (bitPattern + 0x7FFF + (bitPattern >> 16 & 1)) >> 16 }
}

extension SharedBytes {
    public func byte(at offset: Int) -> UInt8 {
        precondition(offset < count)
        return span.unsafeLoad(fromByteOffset: offset, as: UInt8.self)
    }

    public var array: [UInt8] { (0..<count).map { byte(at: $0) } }
}

/// Makes caches for tests: seeded, keys with a few channels of large, steady magnitude as models have them.
public struct TestCache: Sendable {
    public var layers = 2
    public var kvHeads = 2
    public var queryHeads = 4
    public var headDimension = 64
    public var tokens = 300
    public var elementType = ElementType.float16
    /// Queries of each layer, 0 for none.
    public var window = 32
    public var seed: UInt64 = 1

    public init() {}

    public func make() throws -> KVCache {
        var generator = SplitMix64(seed: seed)
        func numbers(_ count: Int, scale: (Int) -> Float, offset: (Int) -> Float) -> [Float] {
            (0..<count).map { generator.normal() * scale($0 % headDimension) + offset($0 % headDimension) }
        }
        func tensor(_ numbers: [Float], heads: Int) -> KVTensor {
            KVTensor(numbers, elementType: elementType, heads: heads, headDimension: headDimension)
        }
        var result: [KVCacheLayer] = []
        for _ in 0..<layers {
            let keys = numbers(
                kvHeads * tokens * headDimension,
                scale: { 0.3 + Float($0 % 7) * 0.3 },
                offset: { $0 % 11 == 3 ? 6 : 0 }
            )
            let values = numbers(kvHeads * tokens * headDimension, scale: { _ in 0.5 }, offset: { _ in 0 })
            let queries = numbers(
                queryHeads * window * headDimension,
                scale: { 0.2 + Float($0 % 5) * 0.4 },
                offset: { _ in 0 }
            )
            result.append(
                KVCacheLayer(
                    keys: tensor(keys, heads: kvHeads),
                    values: tensor(values, heads: kvHeads),
                    queries: window > 0 ? tensor(queries, heads: queryHeads) : nil
                )
            )
        }
        return try KVCache(
            layers: result,
            tokens: (0..<Int32(tokens)).map { $0 * 7 % 1000 },
            metadata: ["model.id": "test", "rope.theta": "10000.0"]
        )
    }
}
