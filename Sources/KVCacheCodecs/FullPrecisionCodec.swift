public import CachePacking
public import KVCacheModel

/// Stores elements as they came, bit for bit: `f16`, `bf16`, `f32`.
///
/// Source: Formats/full-precision.md.
public struct FullPrecisionCodec: CodecStage {
    public let elementType: ElementType

    public init(elementType: ElementType) {
        self.elementType = elementType
    }

    public var parameters: [StageParameter] { [] }

    /// Leaves the plan as it is: what is undecided stays in full precision.
    ///
    /// - Throws: `CodecError` if the cache is of another element type.
    public func decide(_ statistics: inout LayerStatistics, draft: inout LayerDraft) throws(CodecError) {
        // A plan is in full precision until a stage decides otherwise; only the type is to be checked.
        let cacheType = statistics.elementType
        guard cacheType == elementType else {
            throw CodecError(
                .elementTypeMismatch,
                "the recipe stores \(elementType.name) and the cache is \(cacheType.name), which is never converted; "
                    + "use the codec \(cacheType.codecName)"
            )
        }
    }

    public var codec: CodecRegistration { Self.registration(for: elementType) }

    static var registrations: [CodecRegistration] {
        ElementType.allCases.map(registration) + [OwnPrecisionCodec.registration]
    }

    private static func registration(for type: ElementType) -> CodecRegistration {
        CodecRegistration(
            number: type.rawValue,
            name: type.codecName,
            role: .quantization,
            parameterNames: [],
            example: type.codecName,
            help: "\(type.name) as it came, bit for bit"
        ) { (_) throws(RecipeError) in FullPrecisionCodec(elementType: type) }
    }
}

extension ElementType {
    /// The codec that stores this type.
    public var codecName: String { name.lowercased() }
}
