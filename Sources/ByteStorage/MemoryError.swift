/// Memory that can't be had.
public struct MemoryError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Bytes that were asked for; nil where nobody told.
    public let byteCount: Int?

    public init(byteCount: Int?) {
        self.byteCount = byteCount
    }

    /// What to do about it.
    package static let remedy =
        "end other programs, raise the limit (ulimit -v, the container's), or pass a smaller input"

    public var description: String {
        let needed = byteCount.map { "\($0) bytes of memory that can't be had" } ?? "more memory than can be had"
        return "needs \(needed); \(Self.remedy)"
    }
}
