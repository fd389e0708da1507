/// Numbers of the file format, version 1: Formats/snapshot.md.
enum SnapshotFormat {
    static let magic: [UInt8] = [0x89, 0x54, 0x4B, 0x56, 0x0D, 0x0A, 0x1A, 0x0A]
    static let version: UInt32 = 1
    static let headerBytes = 128
    static let tableEntryBytes = 40
    static let sectionCounts = 3...64
    /// Bytes that header and section table take at the most.
    static let maximumFrontBytes = headerBytes + sectionCounts.upperBound * tableEntryBytes
    static let alignment = 64
    /// A zstd frame may expand so many times, so that nobody allocates much more than they were sent.
    static let maximumExpansion = 256
    static let maximumMetadataPairs = 1024
    static let maximumMetadataKeyBytes = 256
    static let maximumMetadataValueBytes = 65536
    static let maximumParameterBytes = 1024
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
}

/// The sections of a file; raw values are their numbers and their order.
public enum SectionKind: UInt32, Sendable, CaseIterable {
    case metadata = 1
    case recipe = 2
    case plan = 3
    case profile = 4
    case quality = 5
    case pages = 6
    case pageTable = 7
    case window = 8
    case tokens = 9
    case positions = 10
    case chain = 11

    /// Unknown kinds from here on are ignored, others refused.
    static let firstIgnorable: UInt32 = 65536

    /// The section's name in tables and JSON.
    public var name: String {
        switch self {
        case .metadata: "metadata"
        case .recipe: "recipe"
        case .plan: "plan"
        case .profile: "profile"
        case .quality: "quality"
        case .pages: "pages"
        case .pageTable: "pageTable"
        case .window: "window"
        case .tokens: "tokens"
        case .positions: "positions"
        case .chain: "chain"
        }
    }
}

/// How a section's bytes are stored.
public enum SectionEncoding: UInt32, Sendable {
    case raw = 0
    case zstd = 1

    /// The encoding's name in tables and JSON.
    public var name: String { self == .raw ? "raw" : "zstd" }
}
