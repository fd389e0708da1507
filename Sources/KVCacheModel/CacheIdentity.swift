/// What tells to which model a cache belongs, and how its numbers lie: caches may stand for each other only where
/// their identities agree. Formats/snapshot.md, "METADATA".
public struct CacheIdentity: Sendable {
    public let geometry: CacheGeometry
    /// The cache's metadata, of which the keys of models, rotary embeddings and tokenizers count.
    public let metadata: [String: String]

    public init(geometry: CacheGeometry, metadata: [String: String]) {
        self.geometry = geometry
        self.metadata = metadata
    }

    /// What two identities don't share.
    public struct Mismatch: Sendable, Equatable {
        /// What it is, such as `rope.theta` or `KV heads of layer 3`.
        public let name: String
        public let left: String
        public let right: String

        public init(name: String, left: String, right: String) {
            self.name = name
            self.left = left
            self.right = right
        }
    }

    static let prefixes = ["model.", "rope.", "tokenizer."]
    private static let fingerprint = "model.fingerprint"

    /// The metadata that says for certain which model made a cache.
    public static let decisiveKeys = ["tokenizer.sha256", fingerprint, "rope.theta"]

    /// Whether caches whose values of `key` differ must not be taken for each other.
    public static func includes(_ key: String) -> Bool { prefixes.contains { key.utf8.starts(with: $0.utf8) } }

    /// The first key, in order, of which both have a value and the values differ.
    public static func mismatch(_ left: [String: String], _ right: [String: String]) -> Mismatch? {
        let key = left.keys.filter(includes).sorted().first { key in
            right[key].map { $0 != left[key] } ?? false
        }
        return key.map { Mismatch(name: $0, left: left[$0] ?? "", right: right[$0] ?? "") }
    }

    /// Whether the metadata is of models with the same weights, whatever their folders are called.
    public static func haveSameWeights(_ left: [String: String], _ right: [String: String]) -> Bool {
        left[fingerprint] != nil && left[fingerprint] == right[fingerprint]
    }

    /// The first thing that the identities don't share, metadata before shapes; nil if the caches may stand for each
    /// other. Query heads count where both know them.
    public func mismatch(with other: CacheIdentity) -> Mismatch? {
        Self.mismatch(metadata, other.metadata) ?? geometry.mismatch(with: other.geometry)
    }
}

extension CacheGeometry {
    /// The first number that the shapes don't share.
    public func mismatch(with other: CacheGeometry) -> CacheIdentity.Mismatch? {
        guard layers.count == other.layers.count else {
            return .init(name: "layers", left: "\(layers.count)", right: "\(other.layers.count)")
        }
        for (index, (mine, others)) in zip(layers, other.layers).enumerated() {
            guard let found = mine.mismatch(with: others) else { continue }
            return .init(name: "\(found.name) of layer \(index)", left: found.left, right: found.right)
        }
        return nil
    }
}

extension LayerGeometry {
    /// The first number that the shapes don't share. Query heads count where both know them.
    package func mismatch(with other: LayerGeometry) -> CacheIdentity.Mismatch? {
        let numbers = [
            ("KV heads", kvHeads, other.kvHeads), ("key dimension", keyDimension, other.keyDimension),
            ("value dimension", valueDimension, other.valueDimension),
        ]
        for (name, left, right) in numbers where left != right {
            return .init(name: name, left: "\(left)", right: "\(right)")
        }
        guard queryHeads != other.queryHeads, queryHeads > 0, other.queryHeads > 0 else { return nil }
        return .init(name: "query heads", left: "\(queryHeads)", right: "\(other.queryHeads)")
    }
}
