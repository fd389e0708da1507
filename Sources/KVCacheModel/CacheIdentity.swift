/// Which metadata tells to which model, positions and tokens a cache belongs: Formats/snapshot.md, "METADATA".
public enum CacheIdentity: Sendable {
    static let prefixes = ["model.", "rope.", "tokenizer."]

    /// Whether caches whose values of `key` differ must not be taken for each other.
    public static func includes(_ key: String) -> Bool { prefixes.contains { key.hasPrefix($0) } }

    /// The first key, in order, of which both have a value and the values differ.
    public static func mismatch(_ left: [String: String], _ right: [String: String]) -> String? {
        left.keys.filter(includes).sorted().first { key in
            right[key].map { $0 != left[key] } ?? false
        }
    }
}
