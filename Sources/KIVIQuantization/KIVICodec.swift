public import CachePacking
public import KVCacheCodecs
internal import KVCacheModel

/// KIVI: asymmetric quantization, keys per channel, values per token, the newest tokens in full precision.
///
/// Source: arXiv 2402.02750, section 3; Formats/kivi.md.
public struct KIVICodec: CodecStage {
    /// How the range of a group is chosen.
    public enum Ranges: String, CaseIterable, Sendable {
        /// From its least number to its greatest, as in the paper.
        case full
        /// Of least squared error. Best with sinks, whose outlying numbers are in no group.
        case fitted

        fileprivate var rule: Coding.RangeRule { self == .full ? .leastToGreatest : .fitted }
    }

    /// How scales are stored.
    public enum Scales: String, CaseIterable, Sendable {
        /// A scale and a minimum in float16 for each group, as in the paper's code.
        case float16
        /// A byte of logarithmic scale and a byte of middle, of numbers less their channel's mean; values have groups of
        /// 64 channels.
        case compact

        fileprivate var stored: Coding.Scales { self == .float16 ? .float16 : .compact }
    }

    /// What is rotated by a Hadamard matrix before it is quantized.
    public enum Rotation: String, CaseIterable, Sendable {
        /// Nothing, as in the paper.
        case none
        /// The values of a token, so that no channel stands out. It needs compact scales.
        case values
    }

    /// The paper's group size.
    public static let defaultGroup = 32
    /// The paper's residual length.
    public static let defaultResidual = 128

    /// Bits per key and per value: 1, 2, 3, 4, 5 or 8.
    public let keyBits: Int
    public let valueBits: Int
    private let keyCoding: Coding
    private let valueCoding: Coding
    /// Tokens of a key group and, but for compact scales, channels of a value group: 32, 64 or 128.
    public let group: Int
    /// Tokens that stay in full precision, a multiple of `group`.
    public let residual: Int
    /// First tokens that are kept in full precision, where a layer holds them; the paper has none.
    public let sinks: Int
    public let ranges: Ranges
    public let scales: Scales
    public let rotation: Rotation

    /// - Throws: `RecipeError` if a number is not one that the format can say.
    public init(
        keyBits: Int,
        valueBits: Int,
        group: Int = defaultGroup,
        residual: Int = defaultResidual,
        sinks: Int = 0,
        ranges: Ranges = .full,
        scales: Scales = .float16,
        rotation: Rotation = .none
    ) throws(RecipeError) {
        try self.init(
            StageParameters(
                stage: Self.registration.name,
                text: "keys=\(keyBits),values=\(valueBits),group=\(group),residual=\(residual),sinks=\(sinks),"
                    + "ranges=\(ranges.rawValue),scales=\(scales.rawValue),rotate=\(rotation.rawValue)",
                allowed: Self.registration.parameterNames
            )
        )
    }

    init(_ parameters: StageParameters) throws(RecipeError) {
        let bits = try parameters.integer("bits", among: Coding.codeWidths)
        let keys = try parameters.integer("keys", among: Coding.codeWidths)
        let values = try parameters.integer("values", among: Coding.codeWidths)
        switch (bits, keys, values) {
        case (let bits?, nil, nil): (keyBits, valueBits) = (bits, bits)
        case (nil, let keys?, let values?): (keyBits, valueBits) = (keys, values)
        case (nil, let one?, nil), (nil, nil, let one?):
            throw RecipeError("kivi needs bits for keys and for values", suggestion: "kivi(keys=\(one),values=\(one))")
        case (nil, nil, nil):
            throw RecipeError("kivi needs a number of bits", suggestion: Self.registration.example)
        default:
            throw RecipeError(
                "kivi takes either bits or keys and values, not both",
                suggestion: "kivi(keys=\(keys ?? bits ?? 2),values=\(values ?? bits ?? 2))"
            )
        }
        ranges = try parameters.word("ranges", as: Ranges.self) ?? .full
        scales = try parameters.word("scales", as: Scales.self) ?? .float16
        rotation = try parameters.word("rotate", as: Rotation.self) ?? .none
        guard rotation == .none || scales == .compact else {
            let bits = keyBits == valueBits ? "bits=\(keyBits)" : "keys=\(keyBits),values=\(valueBits)"
            throw RecipeError(
                "kivi: rotate=values needs compact scales",
                suggestion: "kivi(\(bits),scales=compact,rotate=values)"
            )
        }
        do {
            keyCoding = try Coding(width: keyBits, scales: scales.stored, ranges: ranges.rule)
            valueCoding = try Coding(
                width: valueBits,
                scales: scales.stored,
                ranges: ranges.rule,
                rotation: rotation == .values ? .hadamard : .none
            )
        } catch {
            throw RecipeError("kivi: \(error)")
        }
        group = try parameters.integer("group", among: BlockShape.blockLengths) ?? Self.defaultGroup
        let residual = try parameters.integer("residual", in: BlockShape.residualWindows)
        guard (residual ?? 0).isMultiple(of: group) else {
            throw RecipeError(
                "kivi: residual=\(residual ?? 0) must be a multiple of group=\(group)",
                suggestion: "residual=\(((residual ?? 0) + group - 1) / group * group)"
            )
        }
        self.residual = residual ?? Self.defaultResidual
        sinks = try parameters.integer("sinks", in: LayerPlan.sinkCounts) ?? 0
    }

    /// What recipes and files know the codec by.
    public static let registration = CodecRegistration(
        number: 4,
        name: "kivi",
        role: .quantization,
        parameterNames: ["bits", "keys", "values", "group", "residual", "sinks", "ranges", "scales", "rotate"],
        example: "kivi(bits=2)",
        help: "KIVI: 1-5 or 8 bits, or keys= and values=; group=32|64|128, residual=128, sinks=0, ranges=full|fitted, "
            + "scales=float16|compact, rotate=none|values"
    ) { (parameters) throws(RecipeError) in try KIVICodec(parameters) }

    public var codec: CodecRegistration { Self.registration }

    public var parameters: [StageParameter] {
        var result =
            keyBits == valueBits
            ? [StageParameter("bits", keyBits)]
            : [StageParameter("keys", keyBits), StageParameter("values", valueBits)]
        if group != Self.defaultGroup { result.append(StageParameter("group", group)) }
        if residual != Self.defaultResidual { result.append(StageParameter("residual", residual)) }
        if sinks != 0 { result.append(StageParameter("sinks", sinks)) }
        if ranges != .full { result.append(StageParameter("ranges", ranges.rawValue)) }
        if scales != .float16 { result.append(StageParameter("scales", scales.rawValue)) }
        if rotation != .none { result.append(StageParameter("rotate", rotation.rawValue)) }
        return result
    }

    public var residualWindow: Int { residual }
    public var blockLength: Int? { group }

    /// Quantizes what is kept and undecided; it needs no statistics and never throws.
    ///
    /// A layer that holds no first tokens, such as one with a sliding window, has no sinks.
    public func decide(_ statistics: inout LayerStatistics, draft: inout LayerDraft) throws(CodecError) {
        if statistics.held.beginsWithFirst(sinks) { draft.sinks = max(draft.sinks, sinks) }
        for head in draft.heads.indices { draft.heads[head].decideRest(keys: keyCoding, values: valueCoding) }
    }
}
