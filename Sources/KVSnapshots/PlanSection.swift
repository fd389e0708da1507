internal import CachePacking
internal import KVCacheModel

/// The PLAN section: Formats/snapshot.md.
enum PlanSection {
    static func encode(_ layers: [[HeadPlan]]) -> [UInt8] {
        var writer = ByteWriter()
        for plan in layers.joined() {
            writer.append(UInt16(plan.keyRuns.count))
            writer.append(UInt16(plan.valueWidth))
            writer.append(UInt16(plan.prunedMeans.count))
            writer.append(UInt16(0))
            for run in plan.keyRuns {
                writer.append(UInt16(run.width))
                writer.append(UInt16(run.channels.count))
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
    static func decode(_ reader: inout ByteReader, header: SnapshotHeader) throws(SnapshotError) -> [[HeadPlan]] {
        var layers: [[HeadPlan]] = []
        // Heads with equal plans share them in memory. Means may be equal as numbers and differ in the sign of zero.
        var known: Set<HeadPlan> = []
        for _ in 0..<header.geometry.layers {
            var heads: [HeadPlan] = []
            for _ in 0..<header.geometry.kvHeads {
                let plan = try decodeHead(&reader, shape: header.shape)
                heads.append(plan.prunedMeans.isEmpty ? known.insert(plan).memberAfterInsert : plan)
            }
            layers.append(heads)
        }
        try reader.expectEnd()
        return layers
    }

    private static func decodeHead(_ reader: inout ByteReader, shape: BlockShape) throws(SnapshotError) -> HeadPlan {
        let fullWidth = shape.elementType.bitWidth
        func width(_ name: String) throws(SnapshotError) -> Int {
            let start = reader.position
            let width = Int(try reader.integer(UInt16.self, name))
            guard width == fullWidth || HeadPlan.quantizedWidths.contains(width) else {
                throw reader.error(
                    at: start,
                    "\(name) is \(width), must be of \(HeadPlan.quantizedWidths + [fullWidth])"
                )
            }
            return width
        }
        let runCount = try reader.integer(UInt16.self, "the number of key runs", in: 1...HeadPlan.maximumKeyRuns)
        let valueWidth = try width("the width of values")
        let meanCountOffset = reader.position
        let meanCount = Int(try reader.integer(UInt16.self, "the number of means"))
        _ = try reader.integer(UInt16.self, "a reserved field", in: 0...0)
        // The runs, first without their channels.
        var keyRuns: [HeadPlan.KeyRun] = []
        var counts: [Int] = []
        keyRuns.reserveCapacity(runCount)
        var kept = 0
        for _ in 0..<runCount {
            let start = reader.position
            let runWidth = try width("the width of a run")
            guard !keyRuns.contains(where: { $0.width == runWidth }) else {
                throw reader.error(at: start, "two runs have the width \(runWidth)")
            }
            let count = try reader.integer(
                UInt16.self,
                "the length of a run",
                in: 1...max(shape.headDimension - kept, 1)
            )
            guard kept + count <= shape.headDimension else {
                throw reader.error(at: start + 2, "the runs have more than \(shape.headDimension) channels")
            }
            kept += count
            keyRuns.append(HeadPlan.KeyRun(width: runWidth, channels: []))
            counts.append(count)
        }
        guard meanCount == 0 || meanCount == shape.headDimension - kept else {
            throw reader.error(
                at: meanCountOffset,
                "\(meanCount) means for \(shape.headDimension - kept) pruned channels"
            )
        }
        // A single run that ascends has no channel twice.
        var seen = [Bool](repeating: false, count: runCount > 1 ? shape.headDimension : 0)
        for index in keyRuns.indices {
            let start = reader.position
            let channels = try reader.integers(UInt16.self, count: counts[index], "a channel")
            var former = -1
            for (number, channel) in channels.enumerated() {
                let place = start + number * MemoryLayout<UInt16>.size
                guard Int(channel) < shape.headDimension else {
                    throw reader.error(
                        at: place,
                        "a channel is \(channel), must be 0...\(shape.headDimension - 1)"
                    )
                }
                guard former < Int(channel), runCount == 1 || !seen[Int(channel)] else {
                    throw reader.error(at: place, "channel \(channel) comes twice or out of order")
                }
                if runCount > 1 { seen[Int(channel)] = true }
                former = Int(channel)
            }
            keyRuns[index].channels = channels
        }
        if !kept.isMultiple(of: 2) { _ = try reader.integer(UInt16.self, "padding", in: 0...0) }
        var means: [Float] = []
        for _ in 0..<meanCount {
            let start = reader.position
            let mean = try reader.float("a mean")
            guard mean.isFinite else { throw reader.error(at: start, "a mean is \(mean), must be finite") }
            means.append(mean)
        }
        return HeadPlan(keyRuns: keyRuns, valueWidth: valueWidth, prunedMeans: means)
    }
}
