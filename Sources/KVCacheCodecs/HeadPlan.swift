public import KVCacheModel

/// How one layer's KV head is packed: Formats/snapshot.md, "PLAN".
public struct HeadPlan: Sendable, Equatable {
    /// Key channels of equal width, ascending.
    public struct KeyRun: Sendable, Equatable {
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
        let widths = Self.quantizedWidths + [shape.elementType.bitWidth]
        let channels = keyRuns.flatMap(\.channels).map(Int.init)
        let isAscending = keyRuns.allSatisfy { run in zip(run.channels, run.channels.dropFirst()).allSatisfy { $0 < $1 }
        }
        if !(1...Self.maximumKeyRuns).contains(keyRuns.count) { return "a plan has 1...\(Self.maximumKeyRuns) runs" }
        if Set(keyRuns.map(\.width)).count < keyRuns.count { return "runs have different widths" }
        if !(keyRuns.map(\.width) + [valueWidth]).allSatisfy(widths.contains) { return "widths are of \(widths)" }
        if keyRuns.contains(where: \.channels.isEmpty) || !isAscending { return "a run's channels ascend" }
        if Set(channels).count < channels.count { return "a channel is in one run at most" }
        if channels.contains(where: { $0 >= shape.headDimension }) { return "channels are below the head dimension" }
        let pruned = shape.headDimension - channels.count
        return prunedMeans.isEmpty || prunedMeans.count == pruned ? nil : "every pruned channel has a mean, or none"
    }

    /// Key channels that are kept.
    public var keptChannelCount: Int { keyRuns.reduce(0) { $0 + $1.channels.count } }

    /// The keep mask: whether each key channel is kept.
    public func keepMask(headDimension: Int) -> [Bool] {
        var mask = [Bool](repeating: false, count: headDimension)
        for run in keyRuns {
            for channel in run.channels { mask[Int(channel)] = true }
        }
        return mask
    }
}
