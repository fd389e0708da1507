import CThinkKernels
import ComputeRuntime

/// The kernels of one instruction set of this machine.
struct KernelSet: Sendable, CustomStringConvertible {
    let name: String

    var table: UnsafePointer<tck_kernels> { tck_kernels_named(name)! }
    var kernels: tck_kernels { table.pointee }
    var description: String { name }

    private var isSupported: Bool { tck_kernels_named(name) != nil }

    static let scalar = KernelSet(name: "scalar")

    /// The sets to compare with scalar, widest first, which may be none.
    static let vectorSets = ["avx512vnni", "avx512", "avx2", "neondotprod", "neon"].map(KernelSet.init)
        .filter(\.isSupported)
}

enum ElementType: CaseIterable, Sendable {
    case float16, bfloat16, float32

    var tag: tck_element_type {
        switch self {
        case .float16: TCK_FLOAT16
        case .bfloat16: TCK_BFLOAT16
        case .float32: TCK_FLOAT32
        }
    }

    /// The type of weights that are stored so.
    var weightTag: tck_weight_type {
        switch self {
        case .float16: TCK_WEIGHT_F16
        case .bfloat16: TCK_WEIGHT_BF16
        case .float32: TCK_WEIGHT_F32
        }
    }

    var byteCount: Int { self == .float32 ? 4 : 2 }

    /// The values as elements of this type.
    func encode(_ values: [Float]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: values.count * byteCount)
        KernelSet.scalar.kernels.narrow(tag, values, values.count, &bytes)
        return bytes
    }

    func decode(_ bytes: [UInt8]) -> [Float] {
        var values = [Float](repeating: 0, count: bytes.count / byteCount)
        KernelSet.scalar.kernels.widen(tag, bytes, values.count, &values)
        return values
    }
}

/// Bytes for a kernel to write, with others around them that it must leave alone.
struct GuardedBytes: Equatable {
    static let margin = 64
    static let filler: UInt8 = 0xA5

    private(set) var storage: [UInt8]
    private let start: Int
    private let count: Int

    /// `shift` moves the bytes from their natural alignment.
    init(count: Int, shift: Int = 0) {
        storage = [UInt8](repeating: Self.filler, count: count + 2 * Self.margin + shift)
        start = Self.margin + shift
        self.count = count
    }

    var bytes: [UInt8] { Array(storage[start..<start + count]) }

    var marginsAreIntact: Bool {
        storage[..<start].allSatisfy { $0 == Self.filler }
            && storage[(start + count)...].allSatisfy { $0 == Self.filler }
    }

    mutating func withMutablePointer<Result>(_ body: (UnsafeMutableRawPointer) -> Result) -> Result {
        storage.withUnsafeMutableBytes { body($0.baseAddress! + start) }
    }

    func withPointer<Result>(_ body: (UnsafeRawPointer) -> Result) -> Result {
        storage.withUnsafeBytes { body($0.baseAddress! + start) }
    }

    /// The numbers at the start of the bytes, little-endian.
    var halves: [UInt16] {
        let bytes = bytes
        return (0..<count / 2).map { UInt16(bytes[2 * $0]) | UInt16(bytes[2 * $0 + 1]) << 8 }
    }
}

/// Kinds of values that kernels must treat alike.
enum Pattern: CaseIterable, Sendable {
    case ordinary
    /// Around float16's subnormals, where scales have few bits.
    case tiny
    case constant
    case mixedZeros
    /// A small range far from zero, whose minimum float16 rounds.
    case offset
    case withNaN
    case withNegativeNaN
    case withInfinity
    /// Finite, but more than float16 has.
    case tooLarge

    /// Whether quantization refuses these values; float16 has none that are finite and too large.
    var isRefused: Bool {
        switch self {
        case .withNaN, .withNegativeNaN, .withInfinity, .tooLarge: true
        default: false
        }
    }

    /// The value that makes the pattern special, to be put at one place.
    var oddValue: Float? {
        switch self {
        case .withNaN: Float(bitPattern: 0x7FC0_0001)
        case .withNegativeNaN: Float(bitPattern: 0xFFFF_FFFF)
        case .withInfinity: -Float.infinity
        case .tooLarge: 65_600
        default: nil
        }
    }

    /// Many values, of which tests take slices: making them anew each time would take most of the tests' time.
    private static let pools: [Pattern: [Float]] = Dictionary(
        uniqueKeysWithValues: allCases.map { pattern in
            var generator = SplitMix64(seed: 1)
            let values = (0..<300_000).map { _ -> Float in
                let word = generator.next()
                let value = Float(Int32(truncatingIfNeeded: word) >> 8) / 1_000_000
                return switch pattern {
                case .tiny: value * 1e-8 * Float(word >> 61)
                case .constant: -3.3
                case .mixedZeros: word >> 63 == 0 ? 0 : -0.0
                case .offset: 60_000 + value / 16
                default: value
                }
            }
            return (pattern, values)
        }
    )

    func values(count: Int, seed: Int) -> [Float] {
        let pool = Self.pools[self]!
        let start = seed * 7919 % (pool.count - count)
        return Array(pool[start..<start + count])
    }
}

/// Rows of tokens as kernels read them, at some distance from each other and from alignment.
struct SampleRows {
    let type: ElementType
    let tokens: Int
    let headDimension: Int
    let stride: Int
    private let shift: Int
    private let bytes: [UInt8]

    init(_ pattern: Pattern, type: ElementType, tokens: Int, headDimension: Int, seed: Int) {
        var values = pattern.values(count: tokens * headDimension, seed: seed)
        if let odd = pattern.oddValue, !values.isEmpty { values[seed * 31 % values.count] = odd }
        self.init(
            values,
            type: type,
            tokens: tokens,
            headDimension: headDimension,
            padding: seed % 4 * 5,
            shift: seed % 3
        )
    }

    init(
        _ values: [Float],
        type: ElementType,
        tokens: Int,
        headDimension: Int,
        padding: Int = 0,
        shift: Int = 0
    ) {
        self.type = type
        self.tokens = tokens
        self.headDimension = headDimension
        self.shift = shift
        let rowBytes = headDimension * type.byteCount
        stride = rowBytes + padding
        let encoded = type.encode(values)
        // The last row ends where the bytes end, so that the address sanitizer sees a read beyond it.
        var bytes = [UInt8](repeating: 0xFF, count: shift)
        for token in 0..<tokens {
            bytes += encoded[token * rowBytes..<(token + 1) * rowBytes]
            if token < tokens - 1 { bytes += [UInt8](repeating: 0xFF, count: padding) }
        }
        self.bytes = bytes
    }

    func withRows<Result>(_ body: (tck_rows) -> Result) -> Result {
        bytes.withUnsafeBytes { buffer in
            let start = buffer.baseAddress.map { $0 + shift }
            return body(tck_rows(bytes: start, token_stride: stride, type: type.tag))
        }
    }

    /// The value at a place, as it was rounded to the type.
    func value(token: Int, channel: Int) -> Float {
        let at = shift + token * stride + channel * type.byteCount
        return type.decode(Array(bytes[at..<at + type.byteCount]))[0]
    }
}

extension tck_coding {
    /// The coding of a width; 0 stands for full precision.
    init(width: UInt32, ranges: tck_range_rule = TCK_LEAST_TO_GREATEST) {
        let scales = width == 0 ? TCK_NO_SCALES : TCK_FLOAT16_SCALES
        self.init(
            width: UInt8(width),
            scales: UInt8(scales.rawValue),
            ranges: UInt8(ranges.rawValue),
            rotation: UInt8(TCK_NO_ROTATION.rawValue)
        )
    }
}

/// Calls with the C description of a channel list.
func withChannels<Result>(_ indices: [UInt16], _ body: (tck_channels) -> Result) -> Result {
    indices.withUnsafeBufferPointer { body(tck_channels(indices: $0.baseAddress, count: $0.count)) }
}

/// Some channels in random order: all, about three fifths, or one.
func sampleChannels(headDimension: Int, seed: Int) -> [UInt16] {
    var generator = SplitMix64(seed: UInt64(seed))
    let order = (0..<UInt16(headDimension)).shuffled(using: &generator)
    let counts = [headDimension, (headDimension * 3 + 4) / 5, 1]
    return Array(order.prefix(counts[seed % counts.count]))
}

let sampleHeadDimensions = [1, 7, 16, 40, 64, 80, 96, 128, 256]
let sampleBlockLengths = [32, 64, 128]
let sampleWidths: [UInt32] = [1, 2, 3, 4, 5, 8]
let sampleCounts = [0, 1, 7, 8, 15, 16, 17, 31, 33, 63, 64, 1000]
