internal import ByteStorage
internal import CachePacking
internal import Crypto
public import KVCacheModel

/// Names of prefixes: a SHA-256 digest for every 256 tokens. Formats/snapshot.md, "CHAIN".
public enum PrefixChain: Sendable {
    /// The digests of all whole 256 tokens.
    public static func digests(
        tokens: [Int32],
        geometry: CacheGeometry,
        elementType: ElementType,
        metadata: [String: String]
    ) -> [[UInt8]] {
        var writer = ByteWriter()
        writer.append(elementType.rawValue)
        writer.append(UInt32(geometry.layers.count))
        for layer in geometry.layers {
            for number in [layer.kvHeads, layer.keyDimension, layer.valueDimension] { writer.append(UInt32(number)) }
        }
        MetadataSection.encode(
            MetadataSection.sorted(metadata).filter { CacheIdentity.includes($0.key) },
            into: &writer
        )
        var former = Array(SHA256.hash(data: writer.bytes))
        let pageTokens = BlockShape.pageTokens
        return (0..<tokens.count / pageTokens).map { page in
            var hash = SHA256()
            hash.update(data: former)
            var bytes = ByteWriter()
            for token in tokens[page * pageTokens..<(page + 1) * pageTokens] { bytes.append(token) }
            hash.update(data: bytes.bytes)
            former = Array(hash.finalize())
            return former
        }
    }
}
