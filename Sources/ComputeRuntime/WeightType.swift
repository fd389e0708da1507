package import CThinkKernels

/// How a model's weights are stored: as numbers, or in blocks of one of ggml's quantized formats.
public struct WeightType: Sendable, Equatable {
    /// The name that ggml gives the type, e.g. `Q4_K`.
    public let name: String
    package let kernelType: tck_weight_type

    private init(_ name: String, _ kernelType: tck_weight_type) {
        self.name = name
        self.kernelType = kernelType
    }

    /// Numbers of 32 bits, each a block of its own.
    public static let float32 = WeightType("F32", TCK_WEIGHT_F32)
    /// Numbers of 16 bits, with 5 of the exponent.
    public static let float16 = WeightType("F16", TCK_WEIGHT_F16)
    /// The upper halves of float32 numbers.
    public static let bfloat16 = WeightType("BF16", TCK_WEIGHT_BF16)

    /// All types that can be computed with.
    public static let all: [WeightType] = [
        float32, float16, bfloat16, WeightType("Q8_0", TCK_WEIGHT_Q8_0), WeightType("Q4_0", TCK_WEIGHT_Q4_0),
        WeightType("Q4_1", TCK_WEIGHT_Q4_1), WeightType("Q5_0", TCK_WEIGHT_Q5_0), WeightType("Q5_1", TCK_WEIGHT_Q5_1),
        WeightType("Q2_K", TCK_WEIGHT_Q2_K), WeightType("Q3_K", TCK_WEIGHT_Q3_K), WeightType("Q4_K", TCK_WEIGHT_Q4_K),
        WeightType("Q5_K", TCK_WEIGHT_Q5_K), WeightType("Q6_K", TCK_WEIGHT_Q6_K),
        WeightType("IQ4_NL", TCK_WEIGHT_IQ4_NL), WeightType("MXFP4", TCK_WEIGHT_MXFP4),
    ]

    /// The type that has this number in a GGUF file, or nil if it is none of these.
    public init?(ggmlNumber: UInt32) {
        guard let type = Self.all.first(where: { $0.ggmlNumber == ggmlNumber }) else { return nil }
        self = type
    }

    /// The number that GGUF files have for the type.
    public var ggmlNumber: UInt32 { UInt32(kernelType.rawValue) }

    /// Weights of a row that are stored together: rows have a multiple of so many.
    public var blockLength: Int { tck_weight_block_of(kernelType).length }

    /// The bytes of a block.
    public var blockByteCount: Int { tck_weight_block_of(kernelType).bytes }

    /// The bytes of so many weights, which are a multiple of the block's length.
    public func byteCount(of count: Int) -> Int {
        precondition(count.isMultiple(of: blockLength), "weights are stored in whole blocks")
        return count / blockLength * blockByteCount
    }
}
