internal import CThinkKernels

/// How the numbers of a component in a chunk are distributed: the byte that says it, and which table codes the rows of
/// a shift.
///
/// Formats/archive.md, "ARCHIVE CHUNKS".
struct ComponentTable: Sendable, Equatable {
    /// Quarter octaves from 2^-5 steps on.
    static let scales = 0..<64
    static let families = 2
    /// Up to this one, a standard deviation of a third of a step, five of six numbers are 0.
    static let largestSparseScale = 14
    /// Tables of a family; wider distributions have low bits.
    private static let narrowScales = Int(TCK_SYMBOL_TABLES) / families
    /// The byte of a component of which every number is 0.
    static let zeroByte: UInt8 = 0
    /// The largest byte.
    static let largestByte = UInt8(families * scales.count)

    let family: Int
    let scale: Int

    init(family: Int, scale: Int) {
        self.family = family
        self.scale = scale
    }

    /// - Parameter byte: 1...`largestByte`.
    init(byte: UInt8) {
        (family, scale) = Int(byte - 1).quotientAndRemainder(dividingBy: Self.scales.count)
    }

    var byte: UInt8 { UInt8(1 + family * Self.scales.count + scale) }

    /// The table of symbols for rows of a shift, and how many low bits follow each symbol.
    func symbols(shift: Int) -> (table: UInt32, lowBits: Int) {
        let scale = min(scale + 4 * shift, Self.scales.upperBound - 1)
        let first = family * Self.narrowScales
        if scale < Self.narrowScales { return (UInt32(first + scale), 0) }
        let base = Self.narrowScales - 4
        return (UInt32(first + base + (scale - base) % 4), (scale - base) / 4)
    }
}
