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

    public init(keyRuns: [KeyRun], valueWidth: Int, prunedMeans: [Float]) {
        self.keyRuns = keyRuns
        self.valueWidth = valueWidth
        self.prunedMeans = prunedMeans
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
