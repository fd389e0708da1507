import Foundation
import TestSupport
import ThinkCompress

/// A tensor of a dump, to be compared.
struct DumpTensor: Equatable {
    let elementType: String
    let shape: [Int]
    let bytes: Data

    /// All tensors of a safetensors file.
    static func all(path: String) throws -> (tensors: [String: DumpTensor], metadata: [String: String]) {
        let file = try SafetensorsFile(MappedFile.bytes(path: path))
        let tensors = file.tensors.mapValues {
            DumpTensor(elementType: $0.elementType, shape: $0.shape, bytes: $0.bytes.data)
        }
        return (tensors, file.metadata)
    }

    /// What a dump of the cache must have: restored keys and values in the cache's own type, and what came with them.
    static func all(_ cache: CompressedCache) throws -> [String: DumpTensor] {
        var result: [String: DumpTensor] = [:]
        let geometry = cache.geometry
        for (index, layer) in cache.layers.enumerated() {
            let restored = try layer.decompress(rows: 0..<cache.tokenCount, as: cache.shape.elementType)
            for (part, tensor) in [("keys", restored.keys), ("values", restored.values)] {
                result["layers.\(index).\(part)"] = DumpTensor(
                    elementType: cache.shape.elementType.name,
                    shape: [1, shape.kvHeads, cache.tokenCount, geometry.headDimension],
                    bytes: tensor.bytes.data
                )
            }
            if let profile = cache.profile {
                result["layers.\(index).q2"] = DumpTensor(
                    elementType: "F32",
                    shape: [shape.kvHeads, geometry.headDimension],
                    bytes: Data(profile[index].flatMap { littleEndianBytes($0.bitPattern) })
                )
            }
        }
        for (name, numbers) in [("tokens", cache.tokens), ("positions", cache.positions)] {
            guard let numbers else { continue }
            result[name] = DumpTensor(
                elementType: "I32",
                shape: [numbers.count],
                bytes: Data(numbers.flatMap { littleEndianBytes($0) })
            )
        }
        return result
    }
}

extension KVCache {
    /// Some of the tokens, as an engine would hand them over: without queries.
    func slice(_ range: Range<Int>) throws -> KVCache {
        try KVCache(
            layers: layers(tokens: range),
            tokens: tokens.map { Array($0[range]) },
            positions: positions.map { Array($0[range]) },
            metadata: metadata
        )
    }

    /// The cache with other positions than its tokens' numbers.
    func withPositions() throws -> KVCache {
        try KVCache(
            layers: layers,
            tokens: tokens,
            positions: (0..<Int32(tokenCount)).map { $0 + 17 },
            metadata: metadata
        )
    }
}
