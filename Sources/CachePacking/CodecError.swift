package import ByteStorage

/// A cache that a codec refuses: why, and where in the cache.
public struct CodecError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: Sendable {
        /// A number that is infinite, not a number, or too large.
        case unsupportedValue
        /// The recipe needs queries or a query profile and the cache has none.
        case missingQueries
        /// The recipe needs the bases of a profile and none came with the cache.
        case missingBases
        /// The recipe is for another element type.
        case elementTypeMismatch
        /// What is appended or asked for doesn't fit the cache.
        case shapeMismatch
        /// The plan is one that the format can't say, or that this version can't pack by.
        case unsupportedPlan
        /// The cache can be reused whole only.
        case partialCache
        /// There is no memory for it.
        case outOfMemory
    }

    public let code: Code
    public let layer: Int?
    public let head: Int?
    public let token: Int?
    public let channel: Int?
    public let message: String

    public var description: String {
        let place = [("layer", layer), ("head", head), ("token", token), ("channel", channel)]
            .compactMap { name, index in index.map { "\(name) \($0)" } }
            .joined(separator: ", ")
        return place.isEmpty ? message : "\(message) (\(place))"
    }

    public init(
        _ code: Code,
        layer: Int? = nil,
        head: Int? = nil,
        token: Int? = nil,
        channel: Int? = nil,
        _ message: String
    ) {
        self.code = code
        self.layer = layer
        self.head = head
        self.token = token
        self.channel = channel
        self.message = message
    }

    package init(_ error: MemoryError, layer: Int? = nil) {
        self.init(.outOfMemory, layer: layer, error.description)
    }

    package init(_ error: PlanError, layer: Int, head: Int) {
        self.init(.unsupportedPlan, layer: layer, head: head, error.message)
    }
}
