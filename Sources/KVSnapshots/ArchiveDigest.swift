internal import ByteStorage
internal import Crypto
public import KVCacheModel

extension LayerBases {
    /// The SHA-256 digest of all that archives are restored by: rotary frequencies, units, matrices, scales and weights of
    /// all layers. Formats/profile.md, "The digest of archives' bases".
    ///
    /// - Parameter profile: of every layer of a model.
    /// - Returns: 32 bytes; nil if no layer has bases.
    public static func archiveDigest(of profile: [LayerProfile]) -> [UInt8]? {
        let bases = profile.compactMap(\.bases)
        guard !bases.isEmpty else { return nil }
        var hash = SHA256()
        for layer in bases {
            hash.update(numbers: layer.rotaryFrequencies.map(\.bitPattern))
            for archive in layer.archives {
                let basis = archive.basis
                let counts = [basis.componentCount, basis.channelCount]
                hash.update(numbers: (archive.unit.numbers + counts).map { UInt32($0) })
                unsafe basis.matrix.withUnsafeBytes { unsafe hash.update(bufferPointer: $0) }
                hash.update(numbers: basis.scales.map(\.bitPattern))
                hash.update(numbers: basis.weights.map(\.bitPattern))
            }
        }
        return Array(hash.finalize())
    }
}

extension SHA256 {
    /// Adds numbers, little-endian.
    fileprivate mutating func update(numbers: [UInt32]) {
        var bytes = ByteWriter()
        for number in numbers { bytes.append(number) }
        update(data: bytes.bytes)
    }
}
