/// A cache that can't be: what is wrong, and in which layer.
public struct KVCacheError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable {
        case invalidGeometry, emptyCache, raggedLayers, invalidQueries, invalidProfile, invalidTokens, invalidState
    }

    public let code: Code
    public let layer: Int?
    public let message: String

    public var description: String { layer.map { "layer \($0): \(message)" } ?? message }

    public init(_ code: Code, layer: Int? = nil, _ message: String) {
        self.code = code
        self.layer = layer
        self.message = message
    }

    init(_ error: KVCacheError, layer: Int) {
        self.init(error.code, layer: layer, error.message)
    }
}
