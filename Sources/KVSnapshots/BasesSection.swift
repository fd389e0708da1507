internal import ByteStorage
internal import CachePacking
internal import KVCacheModel

/// The BASES section, what PLAN says of heads whose components are coded: Formats/snapshot.md.
enum BasesSection {
    static func encode(_ layers: [LayerPlan]) -> [UInt8] {
        var writer = ByteWriter()
        for components in layers.lazy.flatMap(\.heads).compactMap(\.components) {
            for plan in CachePart.allCases.compactMap({ components[$0] }) { encode(plan, into: &writer) }
        }
        return writer.bytes
    }

    private static func encode(_ plan: ComponentPlan, into writer: inout ByteWriter) {
        writer.append(UInt8(plan.runs.count))
        writer.append([UInt8](repeating: 0, count: paddingBytes))
        for run in plan.runs {
            writer.append(run.coding.bytes)
            writer.append(UInt32(run.count))
        }
        for number in plan.means + plan.weights + plan.scales { writer.append(number) }
        writer.append(plan.matrix.map { UInt8(bitPattern: $0) })
        writer.appendZeros(upTo: (writer.bytes.count + alignment - 1) / alignment * alignment)
    }

    /// Plans begin at multiples of so many bytes.
    private static let alignment = 4
    /// Bytes after the number of runs.
    private static let paddingBytes = 3
    private static let runBytes = Coding.byteCount + MemoryLayout<UInt32>.size

    /// Reads the plans of a head.
    static func decode(_ reader: inout ByteReader, geometry: LayerGeometry) throws(SnapshotError) -> HeadComponents {
        let keys = try decodePlan(&reader, channels: geometry.keyDimension)
        let values = geometry.valueDimension > 0 ? try decodePlan(&reader, channels: geometry.valueDimension) : nil
        return HeadComponents(keys: keys, values: values)
    }

    /// Reads a plan field by field; the rules are the outline's.
    private static func decodePlan(_ reader: inout ByteReader, channels: Int) throws(SnapshotError) -> ComponentPlan {
        let start = reader.position
        var (coding, numbers) = (start, start)
        var componentCount = 0
        func offset(of place: PlanError.Place) -> Int {
            let runs = start + alignment
            return switch place {
            case .coding(let byte): coding + byte
            case .runCoding(let run, let byte): runs + run * runBytes + byte
            case .runCount(let run): runs + run * runBytes + Coding.byteCount
            case .mean(let index): numbers + index * MemoryLayout<Float>.size
            case .weight(let index): numbers + (channels + index) * MemoryLayout<Float>.size
            case .scale(let index): numbers + (2 * channels + index) * MemoryLayout<Float>.size
            case .matrix(let index): numbers + (2 * channels + componentCount) * MemoryLayout<Float>.size + index
            default: start
            }
        }
        func checked<Value>(_ field: () throws(PlanError) -> Value) throws(SnapshotError) -> Value {
            do {
                return try field()
            } catch {
                throw reader.error(at: offset(of: error.place), error.message)
            }
        }
        let runCount = Int(try reader.integer(UInt8.self, "the number of runs"))
        var outline = try checked { () throws(PlanError) in
            try ComponentPlan.Outline(runCount: runCount, channelCount: channels)
        }
        for _ in 0..<paddingBytes { _ = try reader.integer(UInt8.self, "padding", in: 0...0) }
        for _ in 0..<runCount {
            coding = reader.position
            let bytes = reader.integers(UInt8.self, upTo: Coding.byteCount)
            let read = try checked { () throws(PlanError) in try Coding(bytes: bytes) }
            try checked { () throws(PlanError) in try outline.add(read) }
            let count = Int(try reader.integer(UInt32.self, "a run's length"))
            try checked { () throws(PlanError) in try outline.set(count: count) }
        }
        numbers = reader.position
        componentCount = outline.componentCount
        func floats(_ count: Int) -> [Float] {
            reader.integers(UInt32.self, upTo: count).map(Float.init(bitPattern:))
        }
        let (means, weights, scales) = (floats(channels), floats(channels), floats(componentCount))
        let matrix = reader.integers(Int8.self, upTo: componentCount * channels)
        let plan = try checked { () throws(PlanError) in
            try outline.plan(means: means, weights: weights, scales: scales, matrix: matrix)
        }
        while !(reader.position - start).isMultiple(of: alignment) {
            _ = try reader.integer(UInt8.self, "padding", in: 0...0)
        }
        return plan
    }
}
