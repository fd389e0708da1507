internal import CThinkKernels

/// How the numbers of a run of key channels, or of a head's values, lie in a block: Formats/snapshot.md, "PLAN".
public struct Coding: Sendable, Hashable {
    /// How a group's scale and minimum are stored.
    public enum Scales: UInt8, Sendable {
        /// There are none: full precision.
        case none = 0
        /// A scale and a minimum in float16: Formats/kivi.md.
        case float16 = 1
        /// A logarithmic scale and a middle in a byte each, of numbers less their channel's mean: Formats/kivi.md,
        /// "Compact scales".
        case compact = 2
    }

    /// How a group's range is chosen when a block is packed. Unpacking does not depend on it.
    public struct RangeRule: RawRepresentable, Sendable, Hashable {
        public let rawValue: UInt8

        public init(rawValue: UInt8) { self.rawValue = rawValue }

        /// From the group's least number to its greatest.
        public static let leastToGreatest = RangeRule(rawValue: 0)

        /// Of some ranges within that the one of least squared error: Formats/kivi.md, "Fitted ranges".
        public static let fitted = RangeRule(rawValue: 1)

        /// Whether this version can choose ranges so.
        public var isKnown: Bool { self == .leastToGreatest || self == .fitted }
    }

    /// What numbers are multiplied by before they are coded.
    public enum Rotation: UInt8, Sendable {
        case none = 0
        /// A normalized Hadamard matrix over the channels of a token: values only, and with compact scales. See
        /// Formats/kivi.md, "Rotated values".
        case hadamard = 1
    }

    /// Bits of a code; 0 for numbers in full precision.
    public let width: Int
    public let scales: Scales
    public let ranges: RangeRule
    public let rotation: Rotation

    /// Widths of codes that this version packs and reads.
    public static let codeWidths = [1, 2, 3, 4, 5, 8]

    /// Numbers as they came, of the cache's element type.
    public static let fullPrecision = Coding()

    private init() {
        (width, scales, ranges, rotation) = (0, .none, .leastToGreatest, .none)
    }

    /// Codes of so many bits.
    ///
    /// - Throws: `PlanError` if the width is not one of `codeWidths`, or the others don't go together.
    public init(
        width: Int,
        scales: Scales = .float16,
        ranges: RangeRule = .leastToGreatest,
        rotation: Rotation = .none
    ) throws(PlanError) {
        guard Self.codeWidths.contains(width) else {
            throw PlanError(.coding(byte: 0), "a width is \(width), must be of \(Self.codeWidths)")
        }
        try self.init(bytes: [UInt8(width), scales.rawValue, ranges.rawValue, rotation.rawValue])
    }

    /// Bytes of a coding in a file.
    package static let byteCount = 4

    /// The coding of the bytes that a file has.
    ///
    /// - Parameter bytes: `byteCount` of them; if there are fewer, the first that isn't there is wrong.
    /// - Throws: `PlanError` for the first byte that is wrong.
    package init(bytes: [UInt8]) throws(PlanError) {
        func byte(_ index: Int) throws(PlanError) -> UInt8 {
            guard index < bytes.count else {
                throw PlanError(.coding(byte: index), "\(bytes.count) bytes of a coding are there")
            }
            return bytes[index]
        }
        let width = Int(try byte(0))
        let isCode = width != 0
        guard !isCode || Self.codeWidths.contains(width) else {
            throw PlanError(.coding(byte: 0), "a width is \(width), must be 0 or of \(Self.codeWidths)")
        }
        let scalesByte = try byte(1)
        guard let scales = Scales(rawValue: scalesByte), isCode == (scales != .none) else {
            throw PlanError(.coding(byte: 1), "scales of kind \(scalesByte) for codes of \(width) bits")
        }
        let rangesByte = try byte(2)
        guard isCode || rangesByte == 0 else {
            throw PlanError(.coding(byte: 2), "full precision has no ranges, and they are \(rangesByte)")
        }
        let rotationByte = try byte(3)
        guard let rotation = Rotation(rawValue: rotationByte), rotation == .none || scales == .compact else {
            throw PlanError(.coding(byte: 3), "a rotation of kind \(rotationByte) with scales of kind \(scalesByte)")
        }
        self.width = width
        self.scales = scales
        ranges = RangeRule(rawValue: rangesByte)
        self.rotation = rotation
    }

    /// The coding's bytes in a file.
    package var bytes: [UInt8] { [UInt8(width), scales.rawValue, ranges.rawValue, rotation.rawValue] }

    /// Whether numbers lie as they came.
    public var isFullPrecision: Bool { width == 0 }

    /// The largest magnitude of numbers that are quantized.
    package static let maximumMagnitude = TCK_MAX_QUANTIZED_MAGNITUDE

    /// Whether a number can be quantized.
    package static func isQuantizable(_ number: Float) -> Bool { number.magnitude <= maximumMagnitude }

    /// Whether the mean of their channel, which the plan has, is subtracted from numbers before they are coded.
    public var isCentered: Bool { scales == .compact }
}
