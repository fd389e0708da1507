public import KVCacheModel

/// The bases of a model's profile that archives are made and restored by.
public struct ArchiveBases: Sendable {
    /// The units of every layer, in order of their first layers.
    public let units: [LayerBases.Archive]
    /// Of every layer, radians per position.
    public let rotaryFrequencies: [[Float]]
    /// What names them: Formats/profile.md, "The digest of archives' bases".
    public let digest: [UInt8]

    /// - Returns: nil if the profile has no bases of archives.
    public init?(_ profile: [LayerProfile]) {
        units = profile.flatMap { $0.bases?.archives ?? [] }
        guard !units.isEmpty, let digest = LayerBases.archiveDigest(of: profile) else { return nil }
        rotaryFrequencies = profile.map { $0.bases?.rotaryFrequencies ?? [] }
        self.digest = digest
    }
}
