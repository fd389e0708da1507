internal import ByteStorage
internal import Crypto
public import KVCacheModel

/// The bases of a model's profile that archives are made and restored by.
public struct ArchiveBases: Sendable {
    /// The units of every layer, in order of their first layers.
    public let units: [LayerBases.Archive]
    /// Of every layer, radians per position.
    public let rotaryFrequencies: [[Float]]
    /// SHA-256 of all that restoring depends on: Formats/profile.md, "Bases".
    public let digest: [UInt8]

    /// - Returns: nil if the profile has no bases of archives.
    public init?(_ profile: [LayerProfile]) {
        let layers = profile.map { $0.bases ?? LayerBases(archives: [], rotaryFrequencies: []) }
        units = layers.flatMap(\.archives)
        guard !units.isEmpty else { return nil }
        rotaryFrequencies = layers.map(\.rotaryFrequencies)
        var hash = SHA256()
        func add(_ number: UInt32) {
            unsafe withUnsafeBytes(of: number.littleEndian) { unsafe hash.update(bufferPointer: $0) }
        }
        for layer in layers {
            for frequency in layer.rotaryFrequencies { add(frequency.bitPattern) }
            for archive in layer.archives {
                let unit = archive.unit
                let fields = [
                    unit.layers.lowerBound, unit.layers.count, unit.heads.lowerBound, unit.heads.count,
                    unit.partsNumber,
                    archive.basis.componentCount, archive.basis.channelCount,
                ]
                for field in fields { add(UInt32(field)) }
                unsafe archive.basis.matrix.withUnsafeBytes { unsafe hash.update(bufferPointer: $0) }
                for number in archive.basis.scales + archive.basis.weights { add(number.bitPattern) }
            }
        }
        digest = Array(hash.finalize())
    }
}

extension ArchiveUnit {
    /// What files say of the parts: 1 keys, 2 values, 3 both.
    public var partsNumber: Int { (hasKeys ? 1 : 0) + (hasValues ? 2 : 0) }

    /// - Parameter partsNumber: 1...3.
    public init(layers: Range<Int>, heads: Range<Int>, partsNumber: Int) {
        self.init(layers: layers, heads: heads, hasKeys: partsNumber & 1 != 0, hasValues: partsNumber & 2 != 0)
    }
}
