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
        func add(_ name: String, _ type: String, _ shape: [Int], _ bytes: [UInt8]) {
            result[name] = DumpTensor(elementType: type, shape: shape, bytes: Data(bytes))
        }
        let type = cache.shape.elementType
        for (index, layer) in cache.layers.enumerated() {
            let (geometry, name) = (layer.geometry, "layers.\(index)")
            let restored = try layer.decompress(rows: 0..<layer.rowCount, as: type)
            let shape = [1, geometry.kvHeads, layer.rowCount]
            add("\(name).keys", type.name, shape + [geometry.keyDimension], restored.keys.bytes.array)
            add("\(name).values", type.name, shape + [geometry.valueDimension], restored.values.bytes.array)
            if let profile = cache.profile, !geometry.isEmpty {
                let bytes = profile[index].flatMap { littleEndianBytes($0.bitPattern) }
                add("\(name).q2", "F32", [geometry.kvHeads, geometry.keyDimension], bytes)
            }
            if case .listed(let lists) = layer.held {
                let bytes = lists.joined().flatMap { littleEndianBytes($0) }
                add("\(name).held_tokens", "I32", [geometry.kvHeads, layer.rowCount], bytes)
            }
            for state in layer.state {
                add("\(name).state.\(state.name)", "U8", [state.bytes.count], state.bytes.array)
            }
        }
        for (name, numbers) in [("tokens", cache.tokens), ("positions", cache.positions)] {
            guard let numbers else { continue }
            add(name, "I32", [numbers.count], numbers.flatMap { littleEndianBytes($0) })
        }
        // Formats/dump.md: where nothing else says how many tokens there are.
        if cache.tokens == nil, cache.positions == nil,
            !cache.layers.contains(where: { $0.rowCount == cache.tokenCount })
        {
            add("token_count", "I32", [1], littleEndianBytes(Int32(cache.tokenCount)))
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
