internal import KVCacheModel

/// Numbers of the file format, versions 2 and 3: Formats/snapshot.md.
enum SnapshotFormat {
    static let magic: [UInt8] = [0x89, 0x54, 0x4B, 0x56, 0x0D, 0x0A, 0x1A, 0x0A]
    /// Versions that are read: that of files whose sections all were there in version 2, and that of others.
    static let versions: ClosedRange<UInt32> = 2...3
    static let headerBytes = 128
    static let tableEntryBytes = 40
    static let sectionCounts = 2...64
    /// Bytes that header and section table take at the most.
    static let maximumFrontBytes = headerBytes + sectionCounts.upperBound * tableEntryBytes
    static let alignment = 64
    /// A zstd frame may expand so many times, so that nobody allocates much more than they were sent.
    static let maximumExpansion = 256
    static let maximumMetadataPairs = KVCache.maximumMetadataEntries
    static let maximumMetadataKeyBytes = 256
    static let maximumMetadataValueBytes = 65536
    static let pageTableEntryBytes = 8
    static let digestBytes = 32
    /// Where an error of a missing section points: the header's section count.
    static let sectionCountOffset = 24
    static let fileLengthOffset = 16
    static let headerChecksumOffset = 12
    static let versionOffset = 8

    static func align(_ count: Int) -> Int { (count + alignment - 1) / alignment * alignment }

    /// The product, or nil where it overflows or a factor is negative.
    static func product(_ factors: [Int]) -> Int? {
        var result = 1
        for factor in factors {
            guard factor >= 0 else { return nil }
            let (value, overflow) = result.multipliedReportingOverflow(by: factor)
            if overflow { return nil }
            result = value
        }
        return result
    }

    /// The sum, or nil where it overflows or a summand is nil.
    static func sum(_ summands: some Sequence<Int?>) -> Int? {
        var result = 0
        for summand in summands {
            guard let summand else { return nil }
            let (value, overflow) = result.addingReportingOverflow(summand)
            if overflow { return nil }
            result = value
        }
        return result
    }
}
