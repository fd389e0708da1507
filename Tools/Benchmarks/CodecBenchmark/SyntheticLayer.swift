import Foundation
import ThinkCompress

/// One layer of Llama-3-8B's shape with seeded numbers: a few key channels of large, steady magnitude.
struct SyntheticLayer {
    static let kvHeads = 8
    static let queryHeads = 32
    static let headDimension = 128
    static let window = 32

    let tokens: Int
    let keys: KVTensor
    let values: KVTensor
    let queries: KVTensor

    init(tokens: Int) throws {
        self.tokens = tokens
        var generator = Generator()
        func tensor(heads: Int, rows: Int, outliers: Bool) -> KVTensor {
            var bytes = [UInt8](repeating: 0, count: heads * rows * Self.headDimension * 2)
            bytes.withUnsafeMutableBytes { buffer in
                let halves = buffer.bindMemory(to: UInt16.self)
                for index in halves.indices {
                    let channel = index % Self.headDimension
                    let shift: Float = outliers && channel % 29 == 5 ? 6 : 0
                    halves[index] = Float16(generator.next() * (0.4 + Float(channel % 7) * 0.3) + shift).bitPattern
                }
            }
            return KVTensor(
                bytes: SharedBytes(bytes),
                elementType: .float16,
                heads: heads,
                tokens: rows,
                headDimension: Self.headDimension
            )
        }
        keys = tensor(heads: Self.kvHeads, rows: tokens, outliers: true)
        values = tensor(heads: Self.kvHeads, rows: tokens, outliers: false)
        queries = tensor(heads: Self.queryHeads, rows: Self.window, outliers: false)
    }

    var cacheLayer: KVCacheLayer { KVCacheLayer(keys: keys, values: values, queries: queries) }

    /// Bytes of keys and values in float16.
    var byteCount: Int { keys.byteCount + values.byteCount }

    func writeDump(to path: String) throws {
        func entry(_ name: String, _ tensor: KVTensor) -> SafetensorsWriter.Entry {
            SafetensorsWriter.Entry(
                name: name,
                elementType: "F16",
                shape: [1, tensor.heads, tensor.tokens, tensor.headDimension],
                byteCount: tensor.byteCount
            )
        }
        let tensors = [
            (CacheDump.name(0, .keys), keys), (CacheDump.name(0, .values), values),
            (CacheDump.name(0, .queries), queries),
        ]
        let writer = try SafetensorsWriter(
            path: path,
            replacingExisting: true,
            tensors: tensors.map { entry($0.0, $0.1) },
            metadata: ["model.id": "synthetic"]
        )
        for (name, tensor) in tensors { try writer.write(tensor.bytes, to: name) }
        try writer.commit()
    }

    /// Sums of four uniform numbers: near enough to normal for ranges, and quick.
    private struct Generator {
        private var state: UInt64 = 0x9E37_79B9_7F4A_7C15

        mutating func next() -> Float {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            let parts = SIMD4<Float>(
                Float(state & 0xFFFF),
                Float(state >> 16 & 0xFFFF),
                Float(state >> 32 & 0xFFFF),
                Float(state >> 48)
            )
            return (parts.sum() - 2 * 65535) / 37837
        }
    }
}
