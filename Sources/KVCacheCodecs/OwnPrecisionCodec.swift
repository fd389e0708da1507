public import CachePacking

/// Stores elements as they came, whatever their type: `exact`, which becomes `f16`, `bf16` or `f32`.
///
/// Source: Formats/full-precision.md.
public struct OwnPrecisionCodec: CodecStage {
    public init() {}

    static let registration = CodecRegistration(
        number: 7,
        name: "exact",
        role: .quantization,
        parameterNames: [],
        example: "exact",
        help: "F16, BF16 or F32 as it came, bit for bit"
    ) { (_) throws(RecipeError) in OwnPrecisionCodec() }

    public var codec: CodecRegistration { Self.registration }
    public var parameters: [StageParameter] { [] }

    /// The codec of the cache's type.
    public func prepared(for cache: CacheOutline) async throws -> any CodecStage {
        FullPrecisionCodec(elementType: cache.elementType)
    }

    /// Leaves the plan as it is: what is undecided stays in full precision.
    public func decide(_ statistics: inout LayerStatistics, draft: inout LayerDraft) throws(CodecError) {}
}
