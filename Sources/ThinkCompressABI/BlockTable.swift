internal import CThinkCompress
internal import KVCacheModel

/// Where the tokens of paged keys and values are, checked: no block is beyond the pool.
struct BlockTable {
    /// Tokens that lie in one block.
    struct Run {
        let block: Int
        /// The first token's row in the block.
        let row: Int
        let tokens: Range<Int>
    }

    let blockTokens: Int
    private let firstRow: Int
    private let blocks: [Int32]
    private let poolBlocks: Int
    private let strides: [CachePart: Int]
    private let name: String

    /// - Parameters:
    ///   - tokens: how many the table must have blocks for.
    ///   - isWritten: whether the tokens are written, so that no block may be there twice.
    init(_ table: UnsafePointer<tc_block_table>, tokens: Int, isWritten: Bool, name: String) throws {
        let table = unsafe try sized(table, name, absent: tc_block_table())
        self.name = name
        blockTokens = unsafe table.block_tokens
        firstRow = unsafe table.first_row
        poolBlocks = unsafe table.pool_blocks
        strides = unsafe [.keys: table.key_block_stride, .values: table.value_block_stride]
        let blockCount = unsafe table.block_count
        let limit = CacheGeometry.Limits.tokens.upperBound
        try (1...limit).check(blockTokens, "\(name).block_tokens")
        try (1...Int(Int32.max)).check(poolBlocks, "\(name).pool_blocks")
        try (0...limit).check(blockCount, "\(name).block_count")
        let (room, isBeyond) = blockCount.multipliedReportingOverflow(by: blockTokens)
        guard !isBeyond, firstRow >= 0, firstRow <= room, tokens <= room - firstRow else {
            throw Failure.invalid(
                "\(name) has \(blockCount) blocks of \(blockTokens) tokens: too few for \(tokens) from row "
                    + "\(UInt(bitPattern: firstRow)) on"
            )
        }
        guard let blocks = unsafe array(table.blocks, count: blockCount) else {
            guard blockCount > 0 else {
                blocks = []
                return
            }
            throw Failure.null("\(name).blocks")
        }
        self.blocks = blocks
        var seen: Set<Int32> = []
        for run in runs(of: tokens) {
            let index = (firstRow + run.tokens.lowerBound) / blockTokens
            guard (0..<poolBlocks).contains(run.block) else {
                throw Failure.invalid("\(name).blocks[\(index)] is \(run.block), and the pool has \(poolBlocks)")
            }
            guard !isWritten || seen.insert(blocks[index]).inserted else {
                throw Failure.invalid("\(name).blocks[\(index)] is \(run.block), which is there twice")
            }
        }
    }

    /// The pool of a part.
    func pool(_ part: CachePart) -> TensorLayout.Pool {
        TensorLayout.Pool(
            count: poolBlocks,
            stride: strides[part] ?? 0,
            name: "\(name).\(part == .keys ? "key" : "value")_block_stride"
        )
    }

    /// The first tokens, block by block.
    func runs(of tokens: Int) -> [Run] {
        var runs: [Run] = []
        var token = 0
        while token < tokens {
            let (block, row) = (firstRow + token).quotientAndRemainder(dividingBy: blockTokens)
            let count = min(blockTokens - row, tokens - token)
            runs.append(Run(block: Int(blocks[block]), row: row, tokens: token..<token + count))
            token += count
        }
        return runs
    }
}
