internal import ByteStorage
internal import CacheArchives
internal import KVCacheModel

/// The ARCHIVE PLAN section: Formats/archive.md.
enum ArchivePlanSection {
    /// The basis of a unit, as the file has it.
    private enum BasisNumber: UInt8 {
        case channels, profile
    }

    /// What a layer says whose rotary frequencies are those of the layer before.
    private static let sameFrequencies = 0xFFFF

    static func encode(_ plan: ArchivePlan) -> [UInt8] {
        var writer = ByteWriter()
        writer.append(plan.step)
        writer.append(UInt32(plan.units.count))
        writer.append(plan.basisDigest ?? [UInt8](repeating: 0, count: ArchivePlan.digestBytes))
        var former: [Float]?
        for frequencies in plan.rotaryFrequencies {
            if frequencies == former {
                writer.append(UInt16(sameFrequencies))
            } else {
                writer.append(UInt16(frequencies.count))
                for frequency in frequencies { writer.append(frequency) }
            }
            former = frequencies
        }
        for unit in plan.units {
            let numbers = unit.unit.numbers
            for number in numbers.dropLast() { writer.append(UInt16(number)) }
            writer.append(UInt8(numbers[numbers.count - 1]))
            let basis: BasisNumber = if case .profile = unit.basis { .profile } else { .channels }
            writer.append(basis.rawValue)
            writer.append(UInt16(0))
            writer.append(UInt32(unit.componentCount))
            if case .channels(let weights) = unit.basis {
                for weight in weights { writer.append(weight) }
            }
            for bits in Float16Numbers.bits(of: unit.means) { writer.append(bits) }
        }
        return writer.bytes
    }

    /// Reads the plan, fields in the order that `encode` has them.
    static func decode(_ reader: inout ByteReader, geometry: CacheGeometry) throws(SnapshotError) -> ArchivePlan {
        let step = try reader.float("the step")
        guard ArchivePlan.steps.contains(step) else {
            throw reader.error(at: 0, "the step is \(step), must be from 2^-40 to 2^40")
        }
        let unitCountOffset = reader.position
        let unitCount = Int(try reader.integer(UInt32.self, "the number of units"))
        let digest = try reader.bytes(count: ArchivePlan.digestBytes, "the digest of the bases").array
        var rotaryFrequencies: [[Float]] = []
        for layer in geometry.layers {
            let offset = reader.position
            let pairs = Int(try reader.integer(UInt16.self, "the number of rotary pairs"))
            let former = pairs == sameFrequencies ? rotaryFrequencies.last : nil
            guard former?.count ?? pairs <= layer.keyDimension / 2 else {
                throw reader.error(at: offset, "\(pairs) rotary pairs of keys of dimension \(layer.keyDimension)")
            }
            if let former {
                rotaryFrequencies.append(former)
            } else {
                rotaryFrequencies.append(
                    try floats(&reader, count: pairs, "a rotary frequency") {
                        $0.magnitude <= ArchivePlan.maximumFrequency
                    }
                )
            }
        }
        guard unitCount <= reader.remaining / unitBytes else {
            throw reader.error(at: unitCountOffset, "\(unitCount) units in \(reader.remaining) bytes")
        }
        var units: [ArchivePlan.Unit] = []
        var usesProfile = false
        for _ in 0..<unitCount {
            let start = reader.position
            var numbers = try reader.integers(UInt16.self, count: 4, "a unit's layers and KV heads").map { Int($0) }
            numbers.append(try reader.integer(UInt8.self, "a unit's parts", in: 1...3))
            let number = try reader.integer(UInt8.self, "a unit's basis", in: 0...1)
            _ = try reader.integer(UInt16.self, "a reserved field", in: 0...0)
            guard let unit = ArchiveUnit(numbers: numbers), unit.layers.upperBound <= geometry.layers.count,
                geometry.layers[unit.layers].allSatisfy({ unit.heads.upperBound <= $0.kvHeads })
            else { throw reader.error(at: start, "a unit of layers or KV heads that the cache hasn't") }
            let channels = unit.channelCount(in: geometry)
            guard (1...ArchivePlan.maximumChannels).contains(channels) else {
                throw reader.error(at: start, "a unit of \(channels) channels")
            }
            let hasBasis = number == Int(BasisNumber.profile.rawValue)
            let components = try reader.integer(
                UInt32.self,
                "a unit's components",
                in: (hasBasis ? 1 : channels)...channels
            )
            let basis: ArchivePlan.Basis
            if hasBasis {
                basis = .profile
                usesProfile = true
            } else {
                basis = .channels(
                    weights: try floats(&reader, count: channels, "a weight") { ArchivePlan.weights.contains($0) }
                )
            }
            units.append(
                ArchivePlan.Unit(
                    unit: unit,
                    basis: basis,
                    componentCount: components,
                    means: try means(&reader, count: channels)
                )
            )
        }
        try reader.expectEnd()
        guard usesProfile || digest.allSatisfy({ $0 == 0 }) else {
            throw reader.error(at: unitCountOffset + 4, "a digest of bases that no unit has")
        }
        do {
            return try ArchivePlan(
                step: step,
                rotaryFrequencies: rotaryFrequencies,
                units: units,
                basisDigest: usesProfile ? digest : nil,
                geometry: geometry
            )
        } catch {
            throw reader.error(at: 0, error.message)
        }
    }

    /// Numbers that keep a rule, or the first that is wrong or missing.
    private static func floats(
        _ reader: inout ByteReader,
        count: Int,
        _ field: String,
        rule: (Float) -> Bool
    ) throws(SnapshotError) -> [Float] {
        let start = reader.position
        let numbers = reader.integers(UInt32.self, upTo: count).map(Float.init(bitPattern:))
        if let index = numbers.firstIndex(where: { !rule($0) }) {
            throw reader.error(at: start + index * MemoryLayout<UInt32>.size, "\(field) is \(numbers[index])")
        }
        guard numbers.count == count else { throw reader.error(at: reader.position, "\(field) is missing") }
        return numbers
    }

    private static func means(_ reader: inout ByteReader, count: Int) throws(SnapshotError) -> [Float] {
        let start = reader.position
        let means = Float16Numbers.numbers(of: reader.integers(UInt16.self, upTo: count))
        if let index = means.firstIndex(where: { !$0.isFinite }) {
            throw reader.error(at: start + index * MemoryLayout<UInt16>.size, "a mean is \(means[index])")
        }
        guard means.count == count else { throw reader.error(at: reader.position, "a mean is missing") }
        return means
    }

    /// Bytes of a unit at the least.
    private static let unitBytes = 18
}
