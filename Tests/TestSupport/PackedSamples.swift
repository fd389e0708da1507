package import ThinkCompress

extension HeadPlan {
    /// A plan with key runs of full precision and of three other codings and, if there are enough channels, pruned ones;
    /// some plans prune value channels, too.
    ///
    /// Channels are dealt at random, and so is the order of the runs; no run has a whole number of quads.
    package static func mixed(
        geometry: LayerGeometry,
        values: Coding,
        hasMeans: Bool,
        using generator: inout SplitMix64
    ) throws -> HeadPlan {
        let codings = [.fullPrecision] + (try Coding.samples(isForValues: false)).shuffled(using: &generator).prefix(3)
        var channels = (0..<UInt16(geometry.keyDimension)).shuffled(using: &generator)
        var runs: [KeyRun] = []
        for coding in codings.shuffled(using: &generator) where !channels.isEmpty {
            let share = max(geometry.keyDimension / 5, 1)
            let count = min(share % 4 == 0 ? share + 1 : share, channels.count)
            runs.append(KeyRun(coding, channels: channels.suffix(count).sorted()))
            channels.removeLast(count)
        }
        let centered = runs.filter(\.coding.isCentered).reduce(0) { $0 + $1.channels.count }
        let meanCount = hasMeans || centered > 0 ? channels.count + centered : 0
        let keyMeans = (0..<meanCount).map { _ in generator.normal() / 8 }
        var valueChannels: [UInt16]?
        if geometry.valueDimension > 1, Bool.random(using: &generator) {
            let count = Int.random(in: 1..<geometry.valueDimension, using: &generator)
            valueChannels = (0..<UInt16(geometry.valueDimension)).shuffled(using: &generator).prefix(count).sorted()
        }
        let keptValues = valueChannels?.count ?? geometry.valueDimension
        let valueMeanCount =
            (values.isCentered ? keptValues : 0) + (hasMeans ? geometry.valueDimension - keptValues : 0)
        return try HeadPlan(
            keyRuns: runs,
            values: geometry.valueDimension == 0 ? .fullPrecision : values,
            // Those that are subtracted are about the means of random rows.
            keyMeans: keyMeans,
            valueChannels: valueChannels,
            valueMeans: (0..<valueMeanCount).map { _ in generator.normal() / 8 },
            geometry: geometry
        )
    }
}

extension Coding {
    /// Codings of every width and kind of scales, values' rotated or not; some fit their ranges.
    package static func samples(isForValues: Bool) throws -> [Coding] {
        try codeWidths.enumerated().flatMap { number, width in
            let ranges: RangeRule = number % 2 == 0 ? .leastToGreatest : .fitted
            return [
                try Coding(width: width, ranges: ranges),
                try Coding(
                    width: width,
                    scales: .compact,
                    ranges: ranges == .fitted ? .leastToGreatest : .fitted,
                    rotation: isForValues && number % 3 > 0 ? .hadamard : .none
                ),
            ]
        }
    }
}

extension LayerPlan {
    /// A plan whose heads are mixed plans, each of its own, with values of every coding in turn.
    package static func mixed(geometry: LayerGeometry, sinks: Int = 0, hasMeans: Bool, seed: UInt64) throws -> LayerPlan
    {
        var generator = SplitMix64(seed: seed)
        let codings = try Coding.samples(isForValues: true) + [.fullPrecision]
        let heads = try (0..<geometry.kvHeads).map {
            try HeadPlan.mixed(
                geometry: geometry,
                values: codings[($0 + Int(seed)) % codings.count],
                hasMeans: hasMeans,
                using: &generator
            )
        }
        return LayerPlan(geometry: geometry, sinks: sinks, heads: heads)
    }
}

extension KVCacheLayer {
    /// Random rows of a layer.
    package static func random(
        _ geometry: LayerGeometry,
        elementType: ElementType,
        rows: Int,
        held: HeldTokens = .all,
        state: [LayerState] = [],
        using generator: inout SplitMix64
    ) -> KVCacheLayer {
        guard !geometry.isEmpty else { return KVCacheLayer(elementType: elementType, state: state) }
        let tensors = CachePart.allCases.map { part in
            KVTensor.random(
                elementType: elementType,
                heads: geometry.kvHeads,
                tokens: rows,
                headDimension: geometry.dimension(part),
                using: &generator
            )
        }
        return KVCacheLayer(keys: tensors[0], values: tensors[1], held: held, state: state)
    }

    /// Some of the rows.
    package subscript(rows range: Range<Int>) -> KVCacheLayer {
        KVCacheLayer(keys: keys[tokens: range], values: values[tokens: range])
    }
}

extension CompressedLayer {
    /// A layer that is packed at once by a plan.
    ///
    /// - Parameter tokenCount: tokens of the cache; nil for as many as there are rows.
    package init(
        packing source: KVCacheLayer,
        by plan: LayerPlan,
        shape: BlockShape,
        index: Int = 0,
        tokenCount: Int? = nil
    ) throws {
        let count = tokenCount ?? source.keys.tokens
        self.init(
            shape: shape,
            index: index,
            plan: plan,
            held: source.held,
            skippedTokens: source.held == .last ? count - source.keys.tokens : 0
        )
        let step = try beginAppend(source, newTokens: count - self.tokenCount)
        for head in 0..<geometry.kvHeads { try packBlocks(of: step, head: head) }
        try finishAppend(step)
    }
}

extension CompressedCache {
    /// A cache of layers that were packed by plans.
    package init(_ layers: [CompressedLayer], tokens: [Int32]? = nil) throws {
        self.init(
            geometry: try CacheGeometry(layers.map(\.geometry)),
            recipe: nil,
            layers: layers,
            tokenCount: layers[0].tokenCount,
            tokens: tokens,
            positions: nil,
            metadata: ["model.id": "test"],
            profile: nil
        )
    }
}

extension HeldTokens {
    /// Tokens of each head that begin with the sinks and are chosen at random otherwise.
    package static func random(
        kvHeads: Int,
        rows: Int,
        tokenCount: Int,
        sinks: Int = 0,
        using generator: inout SplitMix64
    ) -> HeldTokens {
        .listed(
            (0..<kvHeads).map { _ in
                let others = (UInt32(sinks)..<UInt32(tokenCount)).shuffled(using: &generator).prefix(rows - sinks)
                return Array(0..<UInt32(sinks)) + others.sorted()
            }
        )
    }
}
