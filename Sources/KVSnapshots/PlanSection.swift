internal import ByteStorage
internal import CachePacking
internal import KVCacheModel

/// The PLAN section: Formats/snapshot.md.
enum PlanSection {
    static func encode(_ layers: [LayerPlan]) -> [UInt8] {
        var writer = ByteWriter()
        for plan in layers.lazy.flatMap(\.heads) {
            writer.append(UInt16(plan.keyRuns.count))
            writer.append(UInt16(plan.prunedMeans.count))
            writer.append(plan.values.bytes)
            for run in plan.keyRuns {
                writer.append(run.coding.bytes)
                writer.append(UInt32(run.channels.count))
            }
            for run in plan.keyRuns {
                for channel in run.channels { writer.append(channel) }
            }
            if !plan.keptChannelCount.isMultiple(of: 2) { writer.append(UInt16(0)) }
            for mean in plan.prunedMeans { writer.append(mean) }
        }
        return writer.bytes
    }

    /// Reads the plans of all layers and heads, fields in the order that `encode` has them.
    static func decode(_ reader: inout ByteReader, layers: [LayerOutline]) throws(SnapshotError) -> [LayerPlan] {
        var plans: [LayerPlan] = []
        // Heads with equal plans share them in memory. Means may be equal as numbers and differ in the sign of zero.
        var known: Set<HeadPlan> = []
        for layer in layers {
            var heads: [HeadPlan] = []
            for _ in 0..<layer.geometry.kvHeads {
                let plan = try decodeHead(&reader, geometry: layer.geometry)
                heads.append(plan.prunedMeans.isEmpty ? known.insert(plan).memberAfterInsert : plan)
            }
            plans.append(LayerPlan(geometry: layer.geometry, sinks: layer.sinks, heads: heads))
        }
        try reader.expectEnd()
        return plans
    }

    /// Where the parts of a head's plan that its length depends on lie.
    private struct Places {
        let start: Int
        var channels = 0
        var means = 0

        /// Bytes of the counts and the values' coding, and of a run.
        static let valueCoding = 4
        static let runs = 8
        static let runBytes = 8
        static let runCount = 4

        func offset(of place: PlanError.Place) -> Int {
            switch place {
            case .keyRunCount: start
            case .meanCount: start + MemoryLayout<UInt16>.size
            case .coding(let byte), .valueCoding(let byte): start + Self.valueCoding + byte
            case .runCoding(let run, let byte): start + Self.runs + run * Self.runBytes + byte
            case .runCount(let run): start + Self.runs + run * Self.runBytes + Self.runCount
            case .channel(let index): channels + index * MemoryLayout<UInt16>.size
            case .mean(let index): means + index * MemoryLayout<Float>.size
            }
        }
    }

    private static func decodeHead(
        _ reader: inout ByteReader,
        geometry: LayerGeometry
    ) throws(SnapshotError) -> HeadPlan {
        var places = Places(start: reader.position)
        func fault(_ error: PlanError) -> SnapshotError {
            reader.error(at: places.offset(of: error.place), error.message)
        }
        let runCount = try reader.integer(UInt16.self, "the number of key runs", in: 1...HeadPlan.maximumKeyRuns)
        let meanCount = Int(try reader.integer(UInt16.self, "the number of means"))
        let values = try coding(&reader, "the values' coding")
        var runs: [(coding: Coding, count: Int)] = []
        for _ in 0..<runCount {
            let coding = try coding(&reader, "a run's coding")
            runs.append((coding, Int(try reader.integer(UInt32.self, "a run's length"))))
        }
        let outline: HeadPlan.Outline
        do {
            outline = try HeadPlan.Outline(runs: runs, values: values, meanCount: meanCount, geometry: geometry)
        } catch {
            throw fault(error)
        }
        places.channels = reader.position
        let channels = try reader.integers(UInt16.self, count: outline.keptCount, "a channel")
        let paddingOffset = reader.position
        if !outline.keptCount.isMultiple(of: 2) { _ = try reader.integer(UInt16.self, "padding") }
        places.means = reader.position
        let means = try reader.integers(UInt32.self, count: meanCount, "a mean").map(Float.init(bitPattern:))
        let plan: HeadPlan
        do {
            plan = try HeadPlan(outline, channels: channels, prunedMeans: means, geometry: geometry)
        } catch {
            throw fault(error)
        }
        if places.means > paddingOffset, reader.bytes.integer(UInt16.self, at: paddingOffset) != 0 {
            throw reader.error(at: paddingOffset, "padding is not 0")
        }
        return plan
    }

    private static func coding(_ reader: inout ByteReader, _ field: String) throws(SnapshotError) -> Coding {
        let start = reader.position
        let bytes = try reader.integers(UInt8.self, count: 4, field)
        do {
            return try Coding(bytes: bytes)
        } catch {
            guard case .coding(let byte) = error.place else { throw reader.error(at: start, error.message) }
            throw reader.error(at: start + byte, error.message)
        }
    }
}
