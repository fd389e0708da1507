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
    case bases = 20

    /// Unknown kinds from here on are ignored, others refused.
    static let firstIgnorable: UInt32 = 65536

    /// The section's name in tables and JSON.
    public var name: String { "\(self)" }

    /// Whether the section is stored as it is, always: what it says becomes many small values in memory, which its bytes
    /// in the file bound.
    var isAlwaysRaw: Bool { self == .geometry || self == .plan || self == .bases }

    /// Whether the section holds keys and values or tells how to read them.
    var isPayload: Bool {
        switch self {
        case .geometry, .plan, .bases, .pages, .pageTable, .sinks, .window, .heldTokens, .state: true
        case .metadata, .recipe, .profile, .quality, .tokens, .positions, .chain: false
        }
    }
}
