internal import CThinkKernels
public import KVCacheModel

/// How one layer's KV head is packed: Formats/snapshot.md, "PLAN".
///
/// A value of this type keeps the format's rules for the layer that it was made for: whoever has one need not check it
/// again.
public struct HeadPlan: Sendable, Hashable {
    /// Key channels of one coding, ascending.
    public struct KeyRun: Sendable, Hashable {
        public let coding: Coding
        public let channels: [UInt16]

        public init(_ coding: Coding, channels: [UInt16]) {
            self.coding = coding
            self.channels = channels
        }
    }

    /// A plan without the channels themselves: what must be right before any are looked at.
    package struct Outline {
        package let runs: [(coding: Coding, count: Int)]
        package let values: Coding
        package let meanCount: Int

        /// - Throws: `PlanError` for the first rule that is broken.
        package init(
            runs: [(coding: Coding, count: Int)],
            values: Coding,
            meanCount: Int,
            geometry: LayerGeometry
        ) throws(PlanError) {
            guard (1...HeadPlan.maximumKeyRuns).contains(runs.count) else {
                throw PlanError(.keyRunCount, "\(runs.count) key runs, must be 1...\(HeadPlan.maximumKeyRuns)")
            }
            guard geometry.valueDimension > 0 || values.isFullPrecision else {
                throw PlanError(.valueCoding(byte: 0), "a coding for values, and the layer has none")
            }
            var kept = 0
            for (index, run) in runs.enumerated() {
                guard !runs[..<index].contains(where: { $0.coding == run.coding }) else {
                    throw PlanError(.runCoding(run: index, byte: 0), "two runs have the same coding")
                }
                guard (1...max(geometry.keyDimension - kept, 1)).contains(run.count), kept < geometry.keyDimension
                else {
                    throw PlanError(
                        .runCount(run: index),
                        "a run of \(run.count) channels after \(kept) of \(geometry.keyDimension)"
                    )
                }
                kept += run.count
            }
            guard meanCount == 0 || meanCount == geometry.keyDimension - kept else {
                throw PlanError(
                    .meanCount,
                    "\(meanCount) means for \(geometry.keyDimension - kept) pruned channels"
                )
            }
            self.runs = runs
            self.values = values
            self.meanCount = meanCount
        }

        /// Channels of all runs.
        package var keptCount: Int { runs.reduce(0) { $0 + $1.count } }
    }

    /// Runs of a plan at the most.
    public static let maximumKeyRuns = Int(TCK_MAX_KEY_RUNS)

    /// The kept channels; pruned ones are in no run.
    public let keyRuns: [KeyRun]
    public let values: Coding
    /// What stands in for the pruned channels, ascending by channel; empty for zeros.
    public let prunedMeans: [Float]
    /// The dimension of the keys that the channels are of.
    public let keyDimension: Int

    /// A plan that keeps everything in full precision.
    public init(fullPrecision geometry: LayerGeometry) {
        keyRuns = [KeyRun(.fullPrecision, channels: (0..<UInt16(geometry.keyDimension)).map { $0 })]
        values = .fullPrecision
        prunedMeans = []
        keyDimension = geometry.keyDimension
    }

    /// A plan for the heads of a layer.
    ///
    /// - Throws: `PlanError` for the first rule of the format that is broken.
    public init(
        keyRuns: [KeyRun],
        values: Coding,
        prunedMeans: [Float] = [],
        geometry: LayerGeometry
    ) throws(PlanError) {
        try self.init(
            Outline(
                runs: keyRuns.map { ($0.coding, $0.channels.count) },
                values: values,
                meanCount: prunedMeans.count,
                geometry: geometry
            ),
            channels: keyRuns.flatMap(\.channels),
            prunedMeans: prunedMeans,
            geometry: geometry
        )
    }

    /// A plan of an outline.
    ///
    /// - Parameter channels: those of all runs, one run after another.
    /// - Throws: `PlanError` for the first rule of the format that is broken.
    package init(
        _ outline: Outline,
        channels: [UInt16],
        prunedMeans: [Float],
        geometry: LayerGeometry
    ) throws(PlanError) {
        precondition(channels.count == outline.keptCount && prunedMeans.count == outline.meanCount)
        // A single run that ascends has no channel twice.
        var isKept = [Bool](repeating: false, count: outline.runs.count > 1 ? geometry.keyDimension : 0)
        var runs: [KeyRun] = []
        var start = 0
        for run in outline.runs {
            let ofRun = channels[start..<start + run.count]
            var previous = -1
            for (index, channel) in zip(ofRun.indices, ofRun) {
                guard channel < geometry.keyDimension else {
                    throw PlanError(
                        .channel(index),
                        "a channel is \(channel), must be below \(geometry.keyDimension)"
                    )
                }
                guard Int(channel) > previous, isKept.isEmpty || !isKept[Int(channel)] else {
                    throw PlanError(.channel(index), "channel \(channel) comes twice or out of order")
                }
                if !isKept.isEmpty { isKept[Int(channel)] = true }
                previous = Int(channel)
            }
            runs.append(KeyRun(run.coding, channels: Array(ofRun)))
            start += run.count
        }
        for (index, mean) in prunedMeans.enumerated() where !mean.isFinite {
            throw PlanError(.mean(index), "a mean is \(mean), must be finite")
        }
        keyRuns = runs
        values = outline.values
        self.prunedMeans = prunedMeans
        keyDimension = geometry.keyDimension
    }

    /// Whether it is a plan for heads of a layer's shape.
    func fits(_ geometry: LayerGeometry) -> Bool {
        keyDimension == geometry.keyDimension && (geometry.valueDimension > 0 || values.isFullPrecision)
    }

    /// The codings of all runs and of the values.
    var codings: [Coding] { keyRuns.map(\.coding) + [values] }

    /// Key channels that are kept.
    public var keptChannelCount: Int { keyRuns.reduce(0) { $0 + $1.channels.count } }

    /// The keep mask: whether each key channel is kept.
    public var keepMask: [Bool] {
        var mask = [Bool](repeating: false, count: keyDimension)
        for run in keyRuns {
            for channel in run.channels { mask[Int(channel)] = true }
        }
        return mask
    }

    /// The key channels in no run, ascending.
    var prunedChannels: [Int] { keepMask.enumerated().filter { !$0.element }.map(\.offset) }
}
