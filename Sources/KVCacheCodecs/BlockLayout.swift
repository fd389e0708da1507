internal import CThinkKernels
public import KVCacheModel

/// What all layers of a compressed cache share: the shape of heads and blocks.
public struct BlockShape: Sendable, Equatable {
    /// Tokens of a page: Formats/snapshot.md, "How a cache is cut".
    public static let pageTokens = Int(TCK_PAGE_TOKENS)
    /// Block lengths that a snapshot can say.
    public static let blockLengths = [32, 64, 128]

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
        precondition((0...Recipe.maximumResidualWindow).contains(residualWindow), "the window is out of range")
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

extension HeadPlan {
    /// Where everything lies in a block of one head: Formats/snapshot.md, "PLAN".
    ///
    /// - Parameter shape: that of the plan's heads. A plan that doesn't keep the rules for them is a programming error.
    func blockFormat(shape: BlockShape) -> tck_block_format {
        if let fault = fault(shape: shape) { preconditionFailure("not a plan for these heads: \(fault)") }
        func coding(_ width: Int) -> tck_coding {
            width == shape.elementType.bitWidth
                ? tck_coding(width: 0, scales: UInt8(TCK_NO_SCALES.rawValue))
                : tck_coding(width: UInt8(width), scales: UInt8(TCK_FLOAT16_SCALES.rawValue))
        }
        var plan = tck_block_plan()
        plan.tokens = shape.blockLength
        plan.key_dimension = shape.headDimension
        plan.value_dimension = shape.headDimension
        plan.full_type = shape.elementType.kernelType
        plan.key_run_count = keyRuns.count
        unsafe withUnsafeMutableBytes(of: &plan.key_runs) { bytes in
            let runs = unsafe bytes.bindMemory(to: tck_coded_channels.self)
            for (index, run) in keyRuns.enumerated() {
                unsafe runs[index] = tck_coded_channels(count: run.channels.count, coding: coding(run.width))
            }
        }
        plan.values = coding(valueWidth)
        return unsafe tck_layout(&plan)
    }

    /// Bytes of a block: Formats/snapshot.md, "PLAN".
    ///
    /// - Parameter shape: that of the plan's heads. A plan that doesn't keep the format's rules for them (widths,
    ///   channels, means) is a programming error.
    public func blockByteCount(shape: BlockShape) -> Int { blockFormat(shape: shape).byte_count }
}
