import TestSupport
import Testing
import ThinkCompress

/// What names the bases of archives: Formats/profile.md, "The digest of archives' bases".
@Suite struct ArchiveDigestTests {
    private static func basis(
        _ matrix: [UInt8],
        scales: [Float],
        weights: [Float],
        variances: [Float]? = nil
    ) -> ComponentBasis {
        let variances = variances ?? scales.map { _ in 1 }
        return ComponentBasis(matrix: SharedBytes(matrix), scales: scales, variances: variances, weights: weights)
    }

    private static func profile(variance: Float = 1, frequency: Float = 0.25, scale: Float = 2) -> [LayerProfile] {
        let both = LayerBases.Archive(
            unit: ArchiveUnit(layers: 0..<1, heads: 0..<1, hasKeys: true, hasValues: true),
            basis: basis(
                [127, 0xFF, 3, 4, 5, 0x81],
                scales: [0.5, 0.125],
                weights: [1, 2, 3],
                variances: [variance, variance]
            )
        )
        let values = LayerBases.Archive(
            unit: ArchiveUnit(layers: 0..<1, heads: 1..<2, hasKeys: false, hasValues: true),
            basis: basis([7], scales: [scale], weights: [4])
        )
        let head = basis([1], scales: [1], weights: [variance])
        let first = LayerBases(
            archives: [both, values],
            rotaryFrequencies: [1, frequency],
            keys: [head],
            values: [head]
        )
        let last = LayerBases(archives: [], rotaryFrequencies: [])
        return [first, nil, last].map { LayerProfile(meanSquaredQueries: [variance]).with($0) }
    }

    /// Computed by Python's hashlib from the format's text.
    @Test func digestsAreThoseOfTheFormat() {
        let digest = LayerBases.archiveDigest(of: Self.profile())
        let hex = digest?.map { String($0, radix: 16).count == 1 ? "0\(String($0, radix: 16))" : String($0, radix: 16) }
        #expect(hex?.joined() == "bda5bbf83b15aec9cb6e872774a63476b1e28251d2d8af4043d68925f2e6a560")
    }

    @Test func onlyWhatArchivesAreRestoredByCounts() {
        let digest = LayerBases.archiveDigest(of: Self.profile())
        #expect(LayerBases.archiveDigest(of: Self.profile(variance: 3)) == digest)
        #expect(LayerBases.archiveDigest(of: Self.profile(frequency: 0.5)) != digest)
        #expect(LayerBases.archiveDigest(of: Self.profile(scale: 3)) != digest)
        #expect(LayerBases.archiveDigest(of: [LayerProfile(meanSquaredQueries: [1])]) == nil)
    }
}
