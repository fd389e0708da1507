public import CachePacking
public import KVCacheModel

/// A layer's plan while the stages of a recipe decide it.
public struct LayerDraft: Sendable {
    public let geometry: LayerGeometry
    /// First tokens that are kept in full precision beside the blocks.
    public var sinks = 0
    /// One for each KV head.
    public var heads: [HeadDraft]

    /// A draft that keeps every channel, undecided how.
    public init(geometry: LayerGeometry) {
        self.geometry = geometry
        heads = [HeadDraft](repeating: HeadDraft(geometry), count: geometry.kvHeads)
    }

    /// The plan that stages decide for a layer.
    ///
    /// - Throws: `CodecError` if a stage can't decide, or the format can't say what was decided.
    static func plan(
        for statistics: inout LayerStatistics,
        stages: [any CodecStage]
    ) throws(CodecError) -> LayerPlan {
        var draft = LayerDraft(geometry: statistics.geometry)
        if !statistics.geometry.isEmpty {
            for stage in stages { try stage.decide(&statistics, draft: &draft) }
        }
        return try draft.plan(for: statistics)
    }

    /// The plan; what no stage has decided is in full precision.
    ///
    /// - Throws: `CodecError` naming the head whose plan, or the layer whose sinks, the format can't say.
    private func plan(for statistics: LayerStatistics) throws(CodecError) -> LayerPlan {
        guard LayerPlan.sinkCounts.contains(sinks), statistics.held.beginsWithFirst(sinks) else {
            throw CodecError(
                .unsupportedPlan,
                layer: statistics.layer,
                "\(sinks) sinks: a layer has at most \(LayerPlan.sinkCounts.upperBound), and only where it holds so many "
                    + "of the cache's first tokens"
            )
        }
        var plans: [HeadPlan] = []
        for (index, head) in heads.enumerated() {
            var means: [CachePart: [Float]] = [:]
            for part in CachePart.allCases where head.isCentered(part) {
                means[part] = try statistics.means(part, head: index, from: sinks).map { Float($0) }
            }
            do {
                plans.append(try head.plan(geometry: geometry, means: means))
            } catch {
                throw CodecError(error, layer: statistics.layer, head: index)
            }
        }
        return LayerPlan(geometry: geometry, sinks: sinks, heads: plans)
    }
}

/// A KV head's plan while the stages of a recipe decide it.
public struct HeadDraft: Sendable {
    /// Key channels that are coded alike, ascending.
    public struct KeyRun: Sendable {
        public var channels: [UInt16]
        /// Nil while no stage has decided.
        public var coding: Coding?

        public init(channels: [UInt16], coding: Coding? = nil) {
            self.channels = channels
            self.coding = coding
        }
    }

    /// The kept channels; pruned ones are in no run.
    public var keyRuns: [KeyRun]
    /// How values are coded; nil while no stage has decided.
    public var values: Coding?
    /// What stands in for pruned key channels; zeros for those that have nothing here.
    public private(set) var means: [UInt16: Float] = [:]
    /// The value channels that are kept, ascending.
    public private(set) var valueChannels: [UInt16]
    /// What stands in for pruned value channels; zeros for those that have nothing here.
    public private(set) var valueMeans: [UInt16: Float] = [:]
    /// How keys and values are coded as components of bases, where a stage decides that: it decides all there is.
    public var components: HeadComponents?

    init(_ geometry: LayerGeometry) {
        keyRuns = [KeyRun(channels: (0..<UInt16(geometry.keyDimension)).map { $0 })]
        valueChannels = (0..<UInt16(geometry.valueDimension)).map { $0 }
    }

    /// The key channels that are kept and about whose coding no stage has decided, ascending.
    public var undecidedChannels: [UInt16] { keyRuns.filter { $0.coding == nil }.flatMap(\.channels).sorted() }

    /// Prunes key channels.
    ///
    /// - Parameter mean: what stands in for a channel; nil for zero.
    public mutating func prune(_ channels: Set<UInt16>, mean: (UInt16) -> Float? = { _ in nil }) {
        for index in keyRuns.indices { keyRuns[index].channels.removeAll(where: channels.contains) }
        for channel in channels { means[channel] = mean(channel) }
    }

    /// Prunes value channels.
    ///
    /// - Parameter mean: what stands in for a channel; nil for zero.
    public mutating func pruneValues(_ channels: Set<UInt16>, mean: (UInt16) -> Float? = { _ in nil }) {
        valueChannels.removeAll(where: channels.contains)
        for channel in channels { valueMeans[channel] = mean(channel) }
    }

    /// Decides what no stage has decided yet.
    public mutating func decideRest(keys: Coding, values: Coding) {
        for index in keyRuns.indices where keyRuns[index].coding == nil { keyRuns[index].coding = keys }
        self.values = self.values ?? values
    }

    /// Whether some keys, or the values, are coded less their channel's mean.
    fileprivate func isCentered(_ part: CachePart) -> Bool {
        guard components == nil else { return false }
        return switch part {
        case .keys: keyRuns.contains { $0.coding?.isCentered == true && !$0.channels.isEmpty }
        case .values: values?.isCentered == true
        }
    }

    /// The plan: runs of one coding become one.
    ///
    /// - Parameter means: of all channels of keys or of values, where `isCentered`.
    fileprivate func plan(geometry: LayerGeometry, means given: [CachePart: [Float]]) throws(PlanError) -> HeadPlan {
        if let components { return HeadPlan(components, geometry: geometry) }
        var runs: [HeadPlan.KeyRun] = []
        for run in keyRuns where !run.channels.isEmpty {
            let coding = run.coding ?? .fullPrecision
            if let index = runs.firstIndex(where: { $0.coding == coding }) {
                runs[index] = HeadPlan.KeyRun(coding, channels: (runs[index].channels + run.channels).sorted())
            } else {
                runs.append(HeadPlan.KeyRun(coding, channels: run.channels))
            }
        }
        let values = geometry.valueDimension == 0 ? .fullPrecision : values ?? .fullPrecision
        let centered = Set(runs.filter(\.coding.isCentered).flatMap(\.channels))
        let kept = Set(runs.flatMap(\.channels))
        var keyMeans: [Float] = []
        if !means.isEmpty || !centered.isEmpty {
            for channel in 0..<UInt16(geometry.keyDimension) {
                if centered.contains(channel) {
                    keyMeans.append(given[.keys]?[Int(channel)] ?? 0)
                } else if !kept.contains(channel) {
                    keyMeans.append(means[channel] ?? 0)
                }
            }
        }
        let keptValues = Set(valueChannels)
        var ofValues: [Float] = []
        for channel in 0..<UInt16(geometry.valueDimension) {
            if !keptValues.contains(channel) {
                if !valueMeans.isEmpty { ofValues.append(valueMeans[channel] ?? 0) }
            } else if values.isCentered {
                ofValues.append(given[.values]?[Int(channel)] ?? 0)
            }
        }
        return try HeadPlan(
            keyRuns: runs,
            values: values,
            keyMeans: keyMeans,
            valueChannels: keptValues.count < geometry.valueDimension ? valueChannels : nil,
            valueMeans: ofValues,
            geometry: geometry
        )
    }
}
