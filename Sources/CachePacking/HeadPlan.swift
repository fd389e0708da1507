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

        public func hash(into hasher: inout Hasher) {
            hasher.combine(coding)
            // All at once: opening a file looks for equal plans of many heads.
            unsafe channels.withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
        }
    }

    /// Whether value channels are pruned, and what stands in for them: the number that a file has.
    package enum ValuePruning: UInt8 {
        case none, zeros, means
    }

    /// A plan that is put together from its fields, which come in the order that a file has them, so that the first
    /// rule that is broken is that of the first field that is wrong. The format's rules stand here and nowhere else.
    package struct Outline {
        private let runCount: Int
        private let geometry: LayerGeometry
        private var valuePruning = ValuePruning.none
        private var values = Coding.fullPrecision
        private var meanCount = 0
        private var codings: [Coding] = []
        private var counts: [Int] = []
        private var runs: [KeyRun] = []
        /// Channels of the runs so far.
        package private(set) var keptCount = 0
        /// Value channels that the plan lists; 0 if it keeps them all and lists none.
        package private(set) var listedValueCount = 0
        private var valueChannels: [UInt16]?

        /// - Throws: `PlanError` if there can't be so many runs.
        package init(runCount: Int, geometry: LayerGeometry) throws(PlanError) {
            guard (1...HeadPlan.maximumKeyRuns).contains(runCount) else {
                throw PlanError(.keyRunCount, "\(runCount) key runs, must be 1...\(HeadPlan.maximumKeyRuns)")
            }
            self.runCount = runCount
            self.geometry = geometry
        }

        /// Says whether value channels are pruned.
        ///
        /// - Parameter valuePruning: the number of a `ValuePruning`.
        /// - Throws: `PlanError` if it is the number of none, or there are no two channels of which one could be kept.
        package mutating func set(valuePruning number: Int) throws(PlanError) {
            guard let pruning = UInt8(exactly: number).flatMap(ValuePruning.init) else {
                throw PlanError(.valuePruning, "value channels are pruned in way \(number), must be 0...2")
            }
            guard pruning == .none || geometry.valueDimension > 1 else {
                throw PlanError(.valuePruning, "pruned value channels of \(geometry.valueDimension)")
            }
            valuePruning = pruning
        }

        /// Whether the plan lists the value channels that are kept.
        package var listsValueChannels: Bool { valuePruning != .none }

        /// - Throws: `PlanError` if the layer has no values that could have this coding.
        package mutating func set(values: Coding) throws(PlanError) {
            guard geometry.valueDimension > 0 || values.isFullPrecision else {
                throw PlanError(.valueCoding(byte: 0), "a coding for values, and the layer has none")
            }
            self.values = values
        }

        /// Means of value channels that the plan must have, once their list is there.
        package var valueMeanCount: Int {
            let kept = listsValueChannels ? listedValueCount : geometry.valueDimension
            return (values.isCentered ? kept : 0) + (valuePruning == .means ? geometry.valueDimension - kept : 0)
        }

        /// Adds a run; `set(count:)` comes next.
        ///
        /// - Throws: `PlanError` if another run has this coding, or it isn't one for keys.
        package mutating func add(_ coding: Coding) throws(PlanError) {
            precondition(codings.count == counts.count && codings.count < runCount, "a run is added after the others")
            guard coding.rotation == .none else {
                throw PlanError(.runCoding(run: codings.count, byte: 3), "keys are not rotated")
            }
            guard !codings.contains(coding) else {
                throw PlanError(.runCoding(run: codings.count, byte: 0), "two runs have the same coding")
            }
            codings.append(coding)
        }

        /// Says how many channels the last run has.
        ///
        /// - Throws: `PlanError` if there are none, or no more of them.
        package mutating func set(count: Int) throws(PlanError) {
            precondition(codings.count == counts.count + 1, "a run's count follows its coding")
            guard count >= 1, count <= geometry.keyDimension - keptCount else {
                throw PlanError(
                    .runCount(run: counts.count),
                    "a run of \(count) channels after \(keptCount) of \(geometry.keyDimension)"
                )
            }
            counts.append(count)
            keptCount += count
        }

        /// Says how many means of key channels there are, once all runs are there.
        ///
        /// - Throws: `PlanError` if they are neither as many as the pruned and the centered channels, nor, where none is
        ///   centered, none.
        package mutating func set(meanCount: Int) throws(PlanError) {
            precondition(counts.count == runCount, "means come after the runs")
            let pruned = geometry.keyDimension - keptCount
            let centered = zip(codings, counts).reduce(0) { $0 + ($1.0.isCentered ? $1.1 : 0) }
            guard meanCount == pruned + centered || meanCount == 0 && centered == 0 else {
                let others = centered > 0 ? " and \(centered) with compact scales" : ""
                throw PlanError(.meanCount, "\(meanCount) means for \(pruned) pruned channels\(others)")
            }
            self.meanCount = meanCount
        }

        /// Gives the channels of all runs, one run after another.
        ///
        /// - Parameter channels: `keptCount` of them; if there are fewer, the first that isn't there is wrong.
        /// - Throws: `PlanError` for the first channel that is wrong.
        package mutating func set(channels: [UInt16]) throws(PlanError) {
            precondition(counts.count == runCount && channels.count <= keptCount, "channels are those of the runs")
            // A single run that ascends has no channel twice.
            var isKept = [Bool](repeating: false, count: runCount > 1 ? geometry.keyDimension : 0)
            var end = 0
            for (coding, count) in zip(codings, counts) {
                let ofRun = end..<min(end + count, channels.count)
                try Self.checkAscending(channels, ofRun, of: .keys, dimension: geometry.keyDimension) { channel in
                    guard !isKept.isEmpty else { return true }
                    defer { isKept[channel] = true }
                    return !isKept[channel]
                }
                runs.append(KeyRun(coding, channels: Array(channels[ofRun])))
                end = ofRun.upperBound
            }
            guard channels.count == keptCount else {
                throw PlanError(.channel(channels.count), "\(channels.count) channels of \(keptCount) are there")
            }
        }

        /// Says how many value channels are kept, where `listsValueChannels`; their list comes next.
        ///
        /// - Throws: `PlanError` if there are none, or none is pruned.
        package mutating func set(valueChannelCount count: Int) throws(PlanError) {
            precondition(listsValueChannels, "a list of value channels that the plan doesn't have")
            guard (1..<geometry.valueDimension).contains(count) else {
                throw PlanError(
                    .valueChannelCount,
                    "\(count) value channels of \(geometry.valueDimension), must be 1...\(geometry.valueDimension - 1)"
                )
            }
            listedValueCount = count
        }

        /// Gives the value channels that are kept.
        ///
        /// - Parameter channels: `listedValueCount` of them; if there are fewer, the first that isn't there is wrong.
        /// - Throws: `PlanError` for the first channel that is wrong.
        package mutating func set(valueChannels channels: [UInt16]) throws(PlanError) {
            precondition(listsValueChannels && channels.count <= listedValueCount, "channels are those of the list")
            try Self.checkAscending(channels, channels.indices, of: .values, dimension: geometry.valueDimension)
            guard channels.count == listedValueCount else {
                throw PlanError(
                    .valueChannel(channels.count),
                    "\(channels.count) value channels of \(listedValueCount) are there"
                )
            }
            valueChannels = channels
        }

        /// Checks that channels are below a dimension and ascend.
        ///
        /// - Parameter isNew: whether a channel comes for the first time.
        private static func checkAscending(
            _ channels: [UInt16],
            _ indices: Range<Int>,
            of part: CachePart,
            dimension: Int,
            isNew: (Int) -> Bool = { _ in true }
        ) throws(PlanError) {
            var previous = -1
            for index in indices {
                let channel = Int(channels[index])
                let place: PlanError.Place = part == .keys ? .channel(index) : .valueChannel(index)
                guard channel < dimension else {
                    throw PlanError(place, "a channel is \(channel), must be below \(dimension)")
                }
                guard channel > previous, isNew(channel) else {
                    throw PlanError(place, "channel \(channel) comes twice or out of order")
                }
                previous = channel
            }
        }

        /// The plan.
        ///
        /// - Parameter means: those of key channels, as many as was said, then `valueMeanCount` of values; if there are
        ///   fewer, the first that isn't there is wrong.
        /// - Throws: `PlanError` for the first mean that is wrong.
        package func plan(means: [Float]) throws(PlanError) -> HeadPlan {
            let count = meanCount + valueMeanCount
            precondition(
                runs.count == runCount && listsValueChannels == (valueChannels != nil) && means.count <= count,
                "means come after the channels"
            )
            let areKeysCentered = codings.contains(where: \.isCentered)
            for (index, mean) in means.enumerated() {
                guard mean.isFinite else { throw PlanError(.mean(index), "a mean is \(mean), must be finite") }
                let isCentered = index < meanCount ? areKeysCentered : values.isCentered
                guard !isCentered || Coding.isQuantizable(mean) else {
                    throw PlanError(
                        .mean(index),
                        "a mean is \(mean), must be at most \(Coding.maximumMagnitude) in magnitude"
                    )
                }
            }
            guard means.count == count else {
                throw PlanError(.mean(means.count), "\(means.count) means of \(count) are there")
            }
            return HeadPlan(
                checkedRuns: runs,
                values: values,
                keyMeans: Array(means.prefix(meanCount)),
                valueMeans: Array(means.dropFirst(meanCount)),
                listedValueChannels: valueChannels,
                geometry: geometry
            )
        }
    }

    /// Runs of a plan at the most.
    public static let maximumKeyRuns = Int(TCK_MAX_KEY_RUNS)

    /// The kept channels; pruned ones are in no run.
    public let keyRuns: [KeyRun]
    public let values: Coding
    /// Means of the key channels that are pruned, whose place they take, and of those with compact scales, from which
    /// they are subtracted; ascending by channel. Empty if there are none of the latter, and zeros stand in for the
    /// former.
    public let keyMeans: [Float]
    /// Means of the value channels that are pruned, whose place they take, unless zeros do, and of those that are kept if
    /// their scales are compact; ascending by channel.
    public let valueMeans: [Float]
    /// The value channels that are kept; nil if all are.
    private let listedValueChannels: [UInt16]?
    /// How keys and values are coded as components of bases, which is then all there is to say: there are no key runs,
    /// `values` and the means do not count. Nil if channels are coded.
    public let components: HeadComponents?
    /// The dimension of the keys that the channels are of.
    public let keyDimension: Int
    /// The dimension of the values.
    public let valueDimension: Int

    /// A plan that keeps everything in full precision.
    public init(fullPrecision geometry: LayerGeometry) {
        keyRuns = [KeyRun(.fullPrecision, channels: (0..<UInt16(geometry.keyDimension)).map { $0 })]
        values = .fullPrecision
        keyMeans = []
        valueMeans = []
        listedValueChannels = nil
        components = nil
        keyDimension = geometry.keyDimension
        valueDimension = geometry.valueDimension
    }

    /// A plan that codes components.
    ///
    /// - Parameter components: of as many channels as the heads' keys and values have.
    public init(_ components: HeadComponents, geometry: LayerGeometry) {
        precondition(
            components.keys.channelCount == geometry.keyDimension
                && components.values?.channelCount ?? 0 == geometry.valueDimension,
            "components are of the layer's keys and values"
        )
        keyRuns = []
        values = .fullPrecision
        keyMeans = []
        valueMeans = []
        listedValueChannels = nil
        self.components = components
        keyDimension = geometry.keyDimension
        valueDimension = geometry.valueDimension
    }

    /// A plan for the heads of a layer.
    ///
    /// - Parameters:
    ///   - valueChannels: the value channels that are kept, ascending; nil for all.
    ///   - valueMeans: those of the property; pruned channels are zeros where it has none for them.
    /// - Throws: `PlanError` for the first rule of the format that is broken.
    public init(
        keyRuns: [KeyRun],
        values: Coding,
        keyMeans: [Float] = [],
        valueChannels: [UInt16]? = nil,
        valueMeans: [Float] = [],
        geometry: LayerGeometry
    ) throws(PlanError) {
        var outline = try Outline(runCount: keyRuns.count, geometry: geometry)
        if let valueChannels {
            let pruning = Self.valuePruning(kept: valueChannels, values: values, means: valueMeans)
            try outline.set(valuePruning: Int(pruning.rawValue))
        }
        try outline.set(values: values)
        for run in keyRuns {
            try outline.add(run.coding)
            try outline.set(count: run.channels.count)
        }
        try outline.set(meanCount: keyMeans.count)
        try outline.set(channels: keyRuns.flatMap(\.channels))
        if let valueChannels {
            try outline.set(valueChannelCount: valueChannels.count)
            try outline.set(valueChannels: valueChannels)
        }
        guard valueMeans.count <= outline.valueMeanCount else {
            throw PlanError(
                .mean(keyMeans.count + outline.valueMeanCount),
                "\(valueMeans.count) means of values, must be \(outline.valueMeanCount)"
            )
        }
        self = try outline.plan(means: keyMeans + valueMeans)
    }

    private init(
        checkedRuns: [KeyRun],
        values: Coding,
        keyMeans: [Float],
        valueMeans: [Float],
        listedValueChannels: [UInt16]?,
        geometry: LayerGeometry
    ) {
        keyRuns = checkedRuns
        self.values = values
        self.keyMeans = keyMeans
        self.valueMeans = valueMeans
        self.listedValueChannels = listedValueChannels
        components = nil
        keyDimension = geometry.keyDimension
        valueDimension = geometry.valueDimension
    }

    /// Whether it is a plan for heads of a layer's shape.
    func fits(_ geometry: LayerGeometry) -> Bool {
        keyDimension == geometry.keyDimension && valueDimension == geometry.valueDimension
    }

    /// The codings of all runs and of the values.
    var codings: [Coding] {
        keyRuns.map(\.coding) + [values] + CachePart.allCases.flatMap { components?[$0]?.runs.map(\.coding) ?? [] }
    }

    /// Key channels that are kept, or components of keys.
    public var keptChannelCount: Int {
        components?.keys.componentCount ?? keyRuns.reduce(0) { $0 + $1.channels.count }
    }

    /// The keep mask: whether each key channel is kept.
    public var keepMask: [Bool] {
        components == nil
            ? Self.mask(of: keyRuns.lazy.flatMap(\.channels), dimension: keyDimension)
            : [Bool](repeating: true, count: keyDimension)
    }

    /// The value channels that are kept, ascending: all, or those that blocks have.
    public var valueChannels: [UInt16] { listedValueChannels ?? (0..<UInt16(valueDimension)).map { $0 } }

    /// Value channels that are kept, or components of values.
    public var keptValueChannelCount: Int {
        components?.values?.componentCount ?? listedValueChannels?.count ?? valueDimension
    }

    /// Whether each value channel is kept.
    public var valueKeepMask: [Bool] {
        listedValueChannels.map { Self.mask(of: $0, dimension: valueDimension) }
            ?? [Bool](repeating: true, count: valueDimension)
    }

    /// What stands in for pruned value channels, where there are any.
    package var valuePruning: ValuePruning {
        listedValueChannels.map { Self.valuePruning(kept: $0, values: values, means: valueMeans) } ?? .none
    }

    /// What stands in for channels other than those that are kept: means, if there are more than these need.
    private static func valuePruning(kept: [UInt16], values: Coding, means: [Float]) -> ValuePruning {
        means.count > (values.isCentered ? kept.count : 0) ? .means : .zeros
    }

    private static func mask(of channels: some Sequence<UInt16>, dimension: Int) -> [Bool] {
        var mask = [Bool](repeating: false, count: dimension)
        for channel in channels { mask[Int(channel)] = true }
        return mask
    }

    /// Whether the plan has means of any channel.
    public var hasMeans: Bool { !keyMeans.isEmpty || !valueMeans.isEmpty || components != nil }

    /// The mean of every key channel: zero for those of runs whose keys are coded as they are, and where `keyMeans` is
    /// empty.
    var keyMeanRow: [Float] {
        var row = [Float](repeating: 0, count: keyDimension)
        guard !keyMeans.isEmpty else { return row }
        var hasMean = [Bool](repeating: true, count: keyDimension)
        for run in keyRuns where !run.coding.isCentered {
            for channel in run.channels { hasMean[Int(channel)] = false }
        }
        for (channel, mean) in zip(row.indices.filter { hasMean[$0] }, keyMeans) { row[channel] = mean }
        return row
    }

    /// The means of the value channels that are kept, if their scales are compact, else none.
    var keptValueMeans: [Float] {
        guard values.isCentered else { return [] }
        guard valuePruning == .means else { return valueMeans }
        let row = valueMeanRow
        return valueChannels.map { row[Int($0)] }
    }

    /// The mean of every value channel: zero for those that `valueMeans` doesn't have.
    package var valueMeanRow: [Float] {
        let mask = valueKeepMask
        let hasMean = mask.map { isKept in isKept ? values.isCentered : valuePruning == .means }
        var row = [Float](repeating: 0, count: valueDimension)
        for (channel, mean) in zip(row.indices.filter { hasMean[$0] }, valueMeans) { row[channel] = mean }
        return row
    }
}
