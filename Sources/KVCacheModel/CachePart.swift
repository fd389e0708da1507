/// The two halves of a cache.
public enum CachePart: Sendable, CaseIterable {
    case keys, values
}

extension KVCacheLayer {
    /// Keys or values.
    public subscript(part: CachePart) -> KVTensor {
        switch part {
        case .keys: keys
        case .values: values
        }
    }
}
