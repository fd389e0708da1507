internal import ByteStorage
internal import CThinkKernels
public import CachePacking
internal import ComputeRuntime
public import KVCacheCodecs
internal import KVCacheModel

/// What llama.cpp keeps its cache in: `llamacpp(type=q8_0)` and `llamacpp(type=q4_0)`, computed as its code does, for
/// measurements beside this project's recipes. No snapshot has it.
///
/// Rows of keys and of values are multiplied by a normalized Hadamard matrix and quantized in blocks of 32 channels with a
/// float16 scale (ggml's `quantize_row_q8_0_ref` and `quantize_row_q4_0_ref`; rotation as in llama.cpp from 2026 on).
public struct PeerCodec: CodecStage {
    /// ggml's types.
    public enum BlockType: String, Sendable, CaseIterable {
        case q8 = "q8_0"
        case q4 = "q4_0"

        /// Bytes of a block of 32 numbers: a scale of two bytes, and the codes.
        var blockByteCount: Int {
            switch self {
            case .q8: 2 + 32
            case .q4: 2 + 16
            }
        }
    }

    public let type: BlockType

    /// What recipes know the codec by, where peers are measured.
    public static let registration = CodecRegistration(
        number: 65536,
        name: "llamacpp",
        role: .channelSelection,
        parameterNames: ["type"],
        example: "llamacpp(type=q4_0)",
        help: "llama.cpp's cache types q8_0 and q4_0, rotated as there: to be measured beside the others"
    ) { (parameters) throws(RecipeError) in
        guard let type = try parameters.word("type", as: BlockType.self) else {
            throw RecipeError("llamacpp needs a type", suggestion: "llamacpp(type=q4_0)")
        }
        return PeerCodec(type: type)
    }

    public var codec: CodecRegistration { Self.registration }
    public var parameters: [StageParameter] { [StageParameter("type", type.rawValue)] }
    public var endsRecipe: Bool { true }
    public var standsAlone: Bool { true }

    /// - Throws: `CodecError` always: such a cache is measured, not kept.
    public func decide(_ statistics: inout LayerStatistics, draft: inout LayerDraft) throws(CodecError) {
        throw CodecError(.unsupportedPlan, layer: statistics.layer, "llama.cpp's caches are measured by eval alone")
    }

    // MARK: -

    private static let block = 32
    /// Head dimensions are rotated in parts of so many channels, keys' in the largest power of two times it.
    private static let rotated = 64

    /// Bytes of a cache.
    func byteCount(of cache: KVCache) -> Int {
        cache.layers.reduce(0) { sum, layer in
            sum + CachePart.allCases.reduce(0) { $0 + byteCount(of: layer[$1]) }
        }
    }

    private func byteCount(of tensor: KVTensor) -> Int {
        let blocks = (tensor.headDimension + Self.block - 1) / Self.block
        return tensor.heads * tensor.tokens * blocks * type.blockByteCount
    }

    /// The cache with what is left of its numbers, in its own type.
    func quantized(_ cache: KVCache) throws -> KVCache {
        try KVCache(
            layers: try cache.layers.map { layer in
                KVCacheLayer(
                    keys: try quantized(layer.keys, part: .keys),
                    values: try quantized(layer.values, part: .values),
                    held: layer.held,
                    state: layer.state
                )
            },
            tokenCount: cache.tokenCount,
            tokens: cache.tokens,
            positions: cache.positions,
            metadata: cache.metadata
        )
    }

    private func quantized(_ tensor: KVTensor, part: CachePart) throws(MemoryError) -> KVTensor {
        let (dimension, elementBytes) = (tensor.headDimension, tensor.elementType.byteCount)
        var width = dimension % Self.rotated == 0 ? Self.rotated : 0
        if part == .keys, width > 0 { while dimension % (2 * width) == 0 { width *= 2 } }
        let bytes = try SharedBytes(byteCount: tensor.byteCount) { bytes in
            unsafe bytes.withUnsafeMutableBytes { bytes in
                guard let base = bytes.baseAddress else { return }
                var row = [Float](repeating: 0, count: dimension)
                for head in 0..<tensor.heads {
                    for token in 0..<tensor.tokens {
                        unsafe row.withUnsafeMutableBufferPointer { row in
                            guard let numbers = row.baseAddress else { return }
                            unsafe tensor.widenRows(head: head, from: token, count: 1, into: numbers)
                            if width > 0 { unsafe Kernels.best.rotate_rows(numbers, dimension / width, width) }
                            for start in stride(from: 0, to: dimension, by: Self.block) {
                                unsafe quantize(
                                    UnsafeMutableBufferPointer(
                                        rebasing: row[start..<min(start + Self.block, dimension)]
                                    )
                                )
                            }
                            if width > 0 { unsafe Kernels.best.rotate_rows(numbers, dimension / width, width) }
                            unsafe Kernels.best.narrow(
                                tensor.elementType.kernelType,
                                numbers,
                                dimension,
                                base + (head * tensor.tokens + token) * dimension * elementBytes
                            )
                        }
                    }
                }
            }
        }
        return KVTensor(
            bytes: bytes,
            elementType: tensor.elementType,
            heads: tensor.heads,
            tokens: tensor.tokens,
            headDimension: dimension
        )
    }

    /// Replaces a block's numbers by what their codes stand for.
    private func quantize(_ block: UnsafeMutableBufferPointer<Float>) {
        let largest = unsafe block.max { $0.magnitude < $1.magnitude } ?? 0
        switch type {
        case .q8:
            let scale = largest.magnitude / 127
            let inverse = scale != 0 ? 1 / scale : 0
            let stored = Self.float16(scale)
            for index in block.indices {
                unsafe block[index] = (block[index] * inverse).rounded(.toNearestOrAwayFromZero) * stored
            }
        case .q4:
            let scale = largest / -8
            let inverse = scale != 0 ? 1 / scale : 0
            let stored = Self.float16(scale)
            for index in block.indices {
                let code = unsafe min(15, (block[index] * inverse + 8.5).rounded(.towardZero))
                unsafe block[index] = (code - 8) * stored
            }
        }
    }

    private static func float16(_ number: Float) -> Float {
        var (number, bits) = (number, UInt16(0))
        unsafe Kernels.best.narrow(TCK_FLOAT16, &number, 1, &bits)
        unsafe Kernels.best.widen(TCK_FLOAT16, &bits, 1, &number)
        return number
    }
}
