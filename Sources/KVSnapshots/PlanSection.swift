internal import ByteStorage
internal import CachePacking
internal import KVCacheModel

/// The PLAN section: Formats/snapshot.md.
enum PlanSection {
    static func encode(_ layers: [LayerPlan]) -> [UInt8] {
        var writer = ByteWriter()
        for plan in layers.lazy.flatMap(\.heads) {
            guard plan.components == nil else {
                writer.append([UInt8](repeating: 0, count: Places.runs))
                continue
            }
            writer.append(UInt8(plan.keyRuns.count))
            writer.append(plan.valuePruning.rawValue)
            writer.append(UInt16(plan.keyMeans.count))
            writer.append(plan.values.bytes)
            for run in plan.keyRuns {
                writer.append(run.coding.bytes)
                writer.append(UInt32(run.channels.count))
            }
            for run in plan.keyRuns {
                for channel in run.channels { writer.append(channel) }
            }
            if !plan.keptChannelCount.isMultiple(of: 2) { writer.append(UInt16(0)) }
            if plan.valuePruning != .none {
                writer.append(UInt16(plan.keptValueChannelCount))
                for channel in plan.valueChannels { writer.append(channel) }
                if plan.keptValueChannelCount.isMultiple(of: 2) { writer.append(UInt16(0)) }
            }
            for mean in plan.keyMeans + plan.valueMeans { writer.append(mean) }
        }
        return writer.bytes
    }

    /// Reads the plans of all layers and heads, fields in the order that `encode` has them.
    ///
    /// - Parameter bases: the BASES section, where the file has it.
    static func decode(
        _ reader: inout ByteReader,
        bases: ByteReader?,
        layers: [LayerOutline]
    ) throws(SnapshotError) -> [LayerPlan] {
        var bases = bases
        var plans: [LayerPlan] = []
        // Heads with equal plans share them in memory. Means may be equal as numbers and differ in the sign of zero.
        var known: Set<HeadPlan> = []
        for layer in layers {
            var heads: [HeadPlan] = []
            for _ in 0..<layer.geometry.kvHeads {
                let plan = try decodeHead(&reader, bases: &bases, geometry: layer.geometry)
                heads.append(plan.hasMeans ? plan : known.insert(plan).memberAfterInsert)
            }
            plans.append(LayerPlan(geometry: layer.geometry, sinks: layer.sinks, heads: heads))
        }
        try reader.expectEnd()
        try bases?.expectEnd()
        return plans
    }

    /// Where the fields of a head's plan lie.
    private struct Places {
        let start: Int
        /// The coding that is being read.
        var coding = 0
        var channels = 0
        var valueChannels = 0
        var means = 0

        /// Bytes of the counts, and of what comes before the runs.
        static let counts = 2 * MemoryLayout<UInt16>.size
        static let runs = counts + Coding.byteCount
        static let runBytes = Coding.byteCount + MemoryLayout<UInt32>.size

        func offset(of place: PlanError.Place) -> Int {
            switch place {
            case .keyRunCount: start
            case .valuePruning: start + MemoryLayout<UInt8>.size
            case .meanCount: start + MemoryLayout<UInt16>.size
            case .coding(let byte): coding + byte
            case .valueCoding(let byte): start + Self.counts + byte
            case .runCoding(let run, let byte): start + Self.runs + run * Self.runBytes + byte
            case .runCount(let run): start + Self.runs + run * Self.runBytes + Coding.byteCount
            case .channel(let index): channels + index * MemoryLayout<UInt16>.size
            case .valueChannelCount: valueChannels
            case .valueChannel(let index): valueChannels + (1 + index) * MemoryLayout<UInt16>.size
            case .mean(let index): means + index * MemoryLayout<Float>.size
            case .weight, .scale, .matrix: start
            }
        }
    }

    /// Reads a head's plan field by field; the rules are the outline's.
    private static func decodeHead(
        _ reader: inout ByteReader,
        bases: inout ByteReader?,
        geometry: LayerGeometry
    ) throws(SnapshotError) -> HeadPlan {
        var places = Places(start: reader.position)
        func checked<Value>(_ field: () throws(PlanError) -> Value) throws(SnapshotError) -> Value {
            do {
                return try field()
            } catch {
                throw reader.error(at: places.offset(of: error.place), error.message)
            }
        }
        func readCoding() throws(SnapshotError) -> Coding {
            places.coding = reader.position
            let bytes = reader.integers(UInt8.self, upTo: Coding.byteCount)
            return try checked { () throws(PlanError) in try Coding(bytes: bytes) }
        }
        let runCount = Int(try reader.integer(UInt8.self, "the number of key runs"))
        if runCount == 0, var ofHead = bases {
            for _ in 1..<Places.runs { _ = try reader.integer(UInt8.self, "a field of a head in BASES", in: 0...0) }
            let components = try BasesSection.decode(&ofHead, geometry: geometry)
            bases = ofHead
            return HeadPlan(components, geometry: geometry)
        }
        var outline = try checked { () throws(PlanError) in
            try HeadPlan.Outline(runCount: runCount, geometry: geometry)
        }
        let valuePruning = Int(try reader.integer(UInt8.self, "whether value channels are pruned"))
        try checked { () throws(PlanError) in try outline.set(valuePruning: valuePruning) }
        let meanCount = Int(try reader.integer(UInt16.self, "the number of means"))
        let values = try readCoding()
        try checked { () throws(PlanError) in try outline.set(values: values) }
        for _ in 0..<runCount {
            let coding = try readCoding()
            try checked { () throws(PlanError) in try outline.add(coding) }
            let count = Int(try reader.integer(UInt32.self, "a run's length"))
            try checked { () throws(PlanError) in try outline.set(count: count) }
        }
        try checked { () throws(PlanError) in try outline.set(meanCount: meanCount) }
        places.channels = reader.position
        let channels = reader.integers(UInt16.self, upTo: outline.keptCount)
        try checked { () throws(PlanError) in try outline.set(channels: channels) }
        if !outline.keptCount.isMultiple(of: 2) { _ = try reader.integer(UInt16.self, "padding", in: 0...0) }
        if outline.listsValueChannels {
            places.valueChannels = reader.position
            let count = Int(try reader.integer(UInt16.self, "the number of value channels"))
            try checked { () throws(PlanError) in try outline.set(valueChannelCount: count) }
            let channels = reader.integers(UInt16.self, upTo: count)
            try checked { () throws(PlanError) in try outline.set(valueChannels: channels) }
            if count.isMultiple(of: 2) { _ = try reader.integer(UInt16.self, "padding", in: 0...0) }
        }
        places.means = reader.position
        let means = reader.integers(UInt32.self, upTo: meanCount + outline.valueMeanCount).map(Float.init(bitPattern:))
        return try checked { () throws(PlanError) in try outline.plan(means: means) }
    }
}
