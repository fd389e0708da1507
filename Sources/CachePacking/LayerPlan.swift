internal import CThinkKernels
public import KVCacheModel

/// How one layer is packed: its shape, its sinks, and the plan of each KV head.
public struct LayerPlan: Sendable, Equatable {
    /// Sinks that a layer may have: Formats/snapshot.md, "Limits".
    public static let sinkCounts = 0...64

    public let geometry: LayerGeometry
    /// First tokens that are kept in full precision beside the blocks.
    public let sinks: Int
    /// One plan for each KV head.
    public let heads: [HeadPlan]

    /// - Parameter heads: plans that were made for `geometry`, one for each KV head.
    public init(geometry: LayerGeometry, sinks: Int = 0, heads: [HeadPlan]) {
        precondition(heads.count == geometry.kvHeads, "every KV head needs a plan")
        precondition(heads.allSatisfy { $0.fits(geometry) }, "a plan of another layer")
        precondition(Self.sinkCounts.contains(sinks), "a layer has at most \(Self.sinkCounts.upperBound) sinks")
        self.geometry = geometry
        self.sinks = sinks
        self.heads = heads
    }

    /// Bytes of a block of all KV heads: Formats/snapshot.md, "PLAN".
    public func blockByteCount(shape: BlockShape) -> Int {
        heads.reduce(0) { $0 + $1.blockFormat(shape: shape).byte_count }
    }
}
