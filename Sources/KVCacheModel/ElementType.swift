package import CThinkKernels

/// How one number of a full-precision cache is stored.
///
/// Raw values are those of Formats/snapshot.md, "Element types".
public enum ElementType: UInt32, Sendable, CaseIterable {
    case float16 = 1
    case bfloat16 = 2
    case float32 = 3

    /// Bytes of an element.
    public var byteCount: Int {
        switch self {
        case .float16, .bfloat16: 2
        case .float32: 4
        }
    }

    /// Bits of an element.
    public var bitWidth: Int { byteCount * 8 }

    /// The type's name as safetensors spells it: F16, BF16 or F32.
    public var name: String {
        switch self {
        case .float16: "F16"
        case .bfloat16: "BF16"
        case .float32: "F32"
        }
    }

    /// The type that safetensors spells so, or nil.
    public init?(name: String) {
        guard let type = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = type
    }

    package var kernelType: tck_element_type { tck_element_type(rawValue: rawValue) }
}

extension tck_element_type {
    /// Bytes of an element, for rows that kernels see.
    package var byteCount: Int { self == TCK_FLOAT32 ? 4 : 2 }
}
