internal import CThinkKernels
public import KVCacheModel

/// What all layers of a compressed cache share: the shape of heads and blocks.
public struct BlockShape: Sendable, Equatable {
    /// Tokens of a page: Formats/snapshot.md, "How a cache is cut".
    public static let pageTokens = 256
    /// Block lengths that a snapshot can say.
    public static let blockLengths = [32, 64, 128]
    /// Residual windows that a snapshot can say, in tokens.
    public static let residualWindows = 0...65536

    public let kvHeads: Int
    public let headDimension: Int
    public let elementType: ElementType
    /// Tokens of a block.
    public let blockLength: Int
    /// Tokens that stay in full precision at least; the window holds fewer than `residualWindow + blockLength`.
    public let residualWindow: Int

    /// A shape within the limits of Formats/snapshot.md; others are a programming error.
    public init(kvHeads: Int, headDimension: Int, elementType: ElementType, blockLength: Int, residualWindow: Int) {
        precondition(Self.blockLengths.contains(blockLength), "a block has 32, 64 or 128 tokens")
        precondition(CacheGeometry.Limits.kvHeads.contains(kvHeads), "too many or too few KV heads")
        precondition(CacheGeometry.Limits.headDimension.contains(headDimension), "the head dimension is out of range")
        precondition(Self.residualWindows.contains(residualWindow), "the window is out of range")
        self.kvHeads = kvHeads
        self.headDimension = headDimension
        self.elementType = elementType
        self.blockLength = blockLength
        self.residualWindow = residualWindow
    }

    /// Blocks of a full page.
    public var blocksPerPage: Int { Self.pageTokens / blockLength }

    /// Bytes of one token's keys or values of a head in full precision.
    public var rowBytes: Int { headDimension * elementType.byteCount }

    /// Blocks of the page of chunk `chunk` when the cache has so many blocks.
    public func blocks(ofChunk chunk: Int, blockCount: Int) -> Int {
        min(blocksPerPage, blockCount - chunk * blocksPerPage)
    }

    /// Chunks of 256 tokens that so many blocks take, the last perhaps in part.
    public func chunkCount(blockCount: Int) -> Int { (blockCount + blocksPerPage - 1) / blocksPerPage }
}

/// Where everything lies in a block of one head: Formats/snapshot.md, "PLAN".
struct BlockLayout: Sendable, Equatable {
    /// The byte offsets of a quantized run or of the values; of a full-precision one only `codes`.
    struct Part: Sendable, Equatable {
        var codes = 0
        var scales = 0
        var minima = 0
    }

    let keyRuns: [Part]
    let values: Part
    let byteCount: Int

    /// The layout of a plan that keeps the rules; others are a programming error.
    init(plan: HeadPlan, shape: BlockShape) {
        if let fault = plan.fault(shape: shape) { preconditionFailure("not a plan for these heads: \(fault)") }
        let tokens = shape.blockLength
        let fullWidth = shape.elementType.bitWidth
        var runs = [Part](repeating: Part(), count: plan.keyRuns.count)
        var end = 0
        for (index, run) in plan.keyRuns.enumerated() {
            runs[index].codes = end
            end +=
                run.width == fullWidth
                ? run.channels.count * tokens * shape.elementType.byteCount
                : tck_key_code_bytes(tokens, run.channels.count, UInt32(run.width))
        }
        for part in [\Part.scales, \Part.minima] {
            for (index, run) in plan.keyRuns.enumerated() where run.width < fullWidth {
                runs[index][keyPath: part] = end
                end += tck_padded_channels(run.channels.count) * MemoryLayout<UInt16>.size
            }
        }
        end = Self.align(end)
        var values = Part(codes: end)
        if plan.valueWidth == fullWidth {
            end += tokens * shape.rowBytes
        } else {
            let groups = tokens * tck_value_groups(shape.headDimension, tokens) * MemoryLayout<UInt16>.size
            values.scales = end + tck_value_code_bytes(tokens, shape.headDimension, UInt32(plan.valueWidth))
            values.minima = values.scales + groups
            end = values.minima + groups
        }
        keyRuns = runs
        self.values = values
        byteCount = Self.align(end)
    }

    /// The same for the attention kernels.
    func format(plan: HeadPlan, shape: BlockShape) -> tck_block_format {
        let fullWidth = shape.elementType.bitWidth
        func width(_ bits: Int) -> UInt32 { bits == fullWidth ? 0 : UInt32(bits) }
        var format = tck_block_format()
        format.tokens = shape.blockLength
        format.byte_count = byteCount
        format.head_dimension = shape.headDimension
        format.full_type = shape.elementType.kernelType
        format.key_run_count = keyRuns.count
        unsafe withUnsafeMutableBytes(of: &format.key_runs) { bytes in
            let runs = unsafe bytes.bindMemory(to: tck_key_run.self)
            for (index, part) in keyRuns.enumerated() {
                unsafe runs[index] = tck_key_run(
                    count: plan.keyRuns[index].channels.count,
                    width: width(plan.keyRuns[index].width),
                    codes: part.codes,
                    scales: part.scales,
                    minima: part.minima
                )
            }
        }
        format.value_width = width(plan.valueWidth)
        format.value_codes = values.codes
        format.value_scales = values.scales
        format.value_minima = values.minima
        return format
    }

    private static func align(_ count: Int) -> Int { (count + 63) / 64 * 64 }
}

extension HeadPlan {
    /// Bytes of a block: Formats/snapshot.md, "PLAN".
    ///
    /// - Parameter shape: that of the plan's heads. A plan that doesn't keep the format's rules for them (widths,
    ///   channels, means) is a programming error.
    public func blockByteCount(shape: BlockShape) -> Int { BlockLayout(plan: self, shape: shape).byteCount }
}
