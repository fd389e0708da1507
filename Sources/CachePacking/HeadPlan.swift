public import KVCacheModel

/// How one layer's KV head is packed: Formats/snapshot.md, "PLAN".
public struct HeadPlan: Sendable, Hashable {
    /// Key channels of equal width, ascending.
    public struct KeyRun: Sendable, Hashable {
        /// Bits per key: 2, 4, 8, or those of the element type for full precision.
        public var width: Int
        public var channels: [UInt16]

        public init(width: Int, channels: [UInt16]) {
            self.width = width
            self.channels = channels
        }
    }

    /// Runs of a plan at the most.
    public static let maximumKeyRuns = 4
    /// Widths that quantized runs and values may have.
    public static let quantizedWidths = [2, 4, 8]

    /// The kept channels; pruned ones are in no run.
    public var keyRuns: [KeyRun]
    /// Bits per value.
    public var valueWidth: Int
    /// What stands in for the pruned channels, ascending by channel; empty for zeros.
    public var prunedMeans: [Float]

    /// A plan that keeps everything in full precision.
    public init(headDimension: Int, elementType: ElementType) {
        precondition(CacheGeometry.Limits.headDimension.contains(headDimension), "the head dimension is out of range")
        keyRuns = [KeyRun(width: elementType.bitWidth, channels: (0..<UInt16(headDimension)).map { $0 })]
        valueWidth = elementType.bitWidth
        prunedMeans = []
    }

    /// A plan by its parts; that it keeps the rules is checked when it is used.
    public init(keyRuns: [KeyRun], valueWidth: Int, prunedMeans: [Float]) {
        self.keyRuns = keyRuns
        self.valueWidth = valueWidth
        self.prunedMeans = prunedMeans
    }

    /// What is wrong with the plan for heads of a shape, or nil: the rules of Formats/snapshot.md, "PLAN".
    func fault(shape: BlockShape) -> String? {
        let fullWidth = shape.elementType.bitWidth
        func isAllowed(_ width: Int) -> Bool { width == fullWidth || Self.quantizedWidths.contains(width) }
        if !(1...Self.maximumKeyRuns).contains(keyRuns.count) { return "a plan has 1...\(Self.maximumKeyRuns) runs" }
        if !isAllowed(valueWidth) { return "widths are of \(Self.quantizedWidths + [fullWidth])" }
        var isKept = [Bool](repeating: false, count: shape.headDimension)
        for (index, run) in keyRuns.enumerated() {
            if !isAllowed(run.width) { return "widths are of \(Self.quantizedWidths + [fullWidth])" }
            if keyRuns[..<index].contains(where: { $0.width == run.width }) { return "runs have different widths" }
            if run.channels.isEmpty { return "a run's channels ascend" }
            var former = -1
            for channel in run.channels {
                if Int(channel) <= former { return "a run's channels ascend" }
                former = Int(channel)
                if former >= shape.headDimension { return "channels are below the head dimension" }
                if isKept[former] { return "a channel is in one run at most" }
                isKept[former] = true
            }
        }
        let pruned = shape.headDimension - keptChannelCount
        return prunedMeans.isEmpty || prunedMeans.count == pruned ? nil : "every pruned channel has a mean, or none"
    }

    /// Key channels that are kept.
    public var keptChannelCount: Int { keyRuns.reduce(0) { $0 + $1.channels.count } }

    /// The keep mask: whether each key channel is kept.
    public func keepMask(headDimension: Int) -> [Bool] {
        var mask = [Bool](repeating: false, count: headDimension)
        for run in keyRuns {
            for channel in run.channels {
                precondition(Int(channel) < headDimension, "channels are below the head dimension")
                mask[Int(channel)] = true
            }
        }
        return mask
    }
}
