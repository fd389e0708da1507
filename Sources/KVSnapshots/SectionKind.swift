/// The sections of a file; raw values are their numbers and their order.
public enum SectionKind: UInt32, Sendable, CaseIterable {
    case metadata = 1
    case recipe = 2
    case geometry = 3
    case plan = 4
    case profile = 5
    case quality = 6
    case pages = 7
    case pageTable = 8
    case sinks = 9
    case window = 10
    case heldTokens = 11
    case state = 12
    case tokens = 13
    case positions = 14
    case chain = 15
    case archivePlan = 16
    case archiveChunks = 17
    case archiveTable = 18
    case archiveWindow = 19
    case bases = 20

    /// Unknown kinds from here on are ignored, others refused.
    static let firstIgnorable: UInt32 = 65536

    /// The section's name in tables and JSON.
    public var name: String { "\(self)" }

    /// Whether the section is stored as it is, always: what it says becomes many small values in memory, which its bytes
    /// in the file bound, or it is coded already.
    var isAlwaysRaw: Bool {
        switch self {
        case .geometry, .plan, .bases, .archivePlan, .archiveChunks, .archiveTable, .archiveWindow: true
        default: false
        }
    }

    /// Whether its parts have checksums of their own, in another section.
    var hasChecksumsInTable: Bool { self == .pages || self == .archiveChunks }

    /// Whether the section holds keys and values or tells how to read them.
    var isPayload: Bool {
        switch self {
        case .geometry, .plan, .bases, .pages, .pageTable, .sinks, .window, .heldTokens, .state,
            .archivePlan, .archiveChunks, .archiveTable, .archiveWindow:
            true
        case .metadata, .recipe, .profile, .quality, .tokens, .positions, .chain: false
        }
    }
}
