import CThinkCompress
import TestSupport
import Testing
import ThinkCompress

/// Keys and values in blocks of a pool, as engines with paged caches have them.
@Suite struct BlockTableTests {
    /// How a block lies in the pool.
    enum Order: CaseIterable, Sendable {
        /// `[blocks, heads, tokens, channels]`, said by strides of 0.
        case dense
        /// `[blocks, tokens, heads, channels]`.
        case tokensFirst
        /// `[blocks, heads, channels, tokens]`.
        case transposed
        /// `[heads, blocks, tokens, channels]`.
        case headsFirst
    }

    /// A pool of blocks for keys and one for values, and a table of the blocks that a layer's tokens are in.
    final class Pool: @unchecked Sendable {
        static let (blockTokens, blockCount, heads, dimension) = (16, 40, 2, 32)
        let keys = EngineMemory(byteCount: blockCount * heads * blockTokens * dimension * 2)
        let values = EngineMemory(byteCount: blockCount * heads * blockTokens * dimension * 2)
        var blocks: [Int32] = []
        let order: Order
        let firstRow: Int

        /// - Parameter firstRow: of the first token.
        init(order: Order, tokens: Int, firstRow: Int) {
            self.order = order
            self.firstRow = firstRow
            let needed = (firstRow + tokens + Self.blockTokens - 1) / Self.blockTokens
            // Anywhere, in no order.
            blocks = (0..<needed).map { Int32(($0 * 7 + 3) % Self.blockCount) }
        }

        private var strides: (block: Int, head: Int, token: Int, channel: Int) {
            let (tokens, heads, dimension) = (Self.blockTokens, Self.heads, Self.dimension)
            let block = heads * tokens * dimension
            return switch order {
            case .dense: (block, tokens * dimension, dimension, 1)
            case .tokensFirst: (block, dimension, heads * dimension, 1)
            case .transposed: (block, tokens * dimension, 1, tokens)
            case .headsFirst: (tokens * dimension, Self.blockCount * tokens * dimension, dimension, 1)
            }
        }

        /// Where a number lies, in bytes.
        private func place(head: Int, token: Int, channel: Int) -> Int {
            let (index, row) = (firstRow + token).quotientAndRemainder(dividingBy: Self.blockTokens)
            let strides = strides
            return 2
                * (Int(blocks[index]) * strides.block + head * strides.head + row * strides.token
                    + channel * strides.channel)
        }

        func write(_ tensor: KVTensor, to memory: EngineMemory) {
            for head in 0..<tensor.heads {
                for token in 0..<tensor.tokens {
                    for channel in 0..<tensor.headDimension {
                        let offset = head * tensor.headStride + token * tensor.tokenStride + channel * 2
                        for byte in 0..<2 {
                            memory.start.storeBytes(
                                of: tensor.bytes.byte(at: offset + byte),
                                toByteOffset: place(head: head, token: token, channel: channel) + byte,
                                as: UInt8.self
                            )
                        }
                    }
                }
            }
        }

        /// The bytes of tokens in the order `[heads, tokens, channels]`.
        func read(_ memory: EngineMemory, tokens: Int) -> [UInt8] {
            var bytes: [UInt8] = []
            for head in 0..<Self.heads {
                for token in 0..<tokens {
                    for channel in 0..<Self.dimension {
                        let place = place(head: head, token: token, channel: channel)
                        bytes += [0, 1].map { memory.start.load(fromByteOffset: place + $0, as: UInt8.self) }
                    }
                }
            }
            return bytes
        }

        var tensorStrides: (head: Int, token: Int, channel: Int) {
            order == .dense ? (0, 0, 0) : (strides.head, strides.token, strides.channel)
        }

        func withTable<Result>(_ body: (UnsafePointer<tc_block_table>) throws -> Result) rethrows -> Result {
            try blocks.withUnsafeBufferPointer { blocks in
                var table = tc_block_table(
                    size: MemoryLayout<tc_block_table>.size,
                    blocks: blocks.baseAddress,
                    block_count: blocks.count,
                    block_tokens: Self.blockTokens,
                    first_row: firstRow,
                    pool_blocks: Self.blockCount,
                    key_block_stride: order == .headsFirst ? strides.block : 0,
                    value_block_stride: order == .headsFirst ? strides.block : 0
                )
                return try body(&table)
            }
        }

        func tensor(_ memory: EngineMemory) -> tc_tensor {
            let strides = tensorStrides
            return tc_tensor(
                data: memory.start,
                type: TC_FLOAT16,
                head_stride: strides.head,
                token_stride: strides.token,
                channel_stride: strides.channel
            )
        }
    }

    /// A call with a layer whose keys and values are paged.
    private func withPaged<Result>(
        _ layer: KVCacheLayer,
        order: Order,
        firstRow: Int,
        _ body: (inout tc_layer) throws -> Result
    ) rethrows -> Result {
        let pool = Pool(order: order, tokens: layer.keys.tokens, firstRow: firstRow)
        pool.write(layer.keys, to: pool.keys)
        pool.write(layer.values, to: pool.values)
        let queries = layer.queries.map { EngineTensor($0) }
        return try withExtendedLifetime((pool, queries)) {
            try pool.withTable { table in
                var argument = tc_layer()
                argument.size = MemoryLayout<tc_layer>.size
                (argument.keys, argument.values) = (pool.tensor(pool.keys), pool.tensor(pool.values))
                argument.tokens = layer.keys.tokens
                if let queries { (argument.queries, argument.query_count) = (queries.argument, queries.tokens) }
                argument.blocks = table
                return try body(&argument)
            }
        }
    }

    @Test("paged keys and values are compressed, appended and attended as others are", arguments: Order.allCases)
    func pagedLayers(order: Order) async throws {
        let whole = try TestCache.small(tokens: 400)
        let source = try whole.prefix(300)
        var expected = try await CompressedCache(compressing: source, recipe: Recipe("kivi(bits=2)"))
        let compressor = try Owned.compressor(source, recipe: "kivi(bits=2)")
        for layer in source.layers {
            try withPaged(layer, order: order, firstRow: 0) {
                try check(tc_compressor_add_layer(compressor.pointer, &$0, nil))
            }
        }
        let cache = try Owned.finish(compressor, of: source)

        let queries = EngineTensor(try #require(whole.layers[0].queries)[tokens: 0..<1])
        var query = queries.argument
        var (paged, plain) = ([Float](repeating: 0, count: 128), [Float](repeating: 1, count: 128))
        let more = whole.layers(tokens: 300..<400)
        try withPaged(more[0], order: order, firstRow: 12) { newer in
            try withUnsafePointer(to: newer) { newer in
                var options = tc_attention_options()
                (options.size, options.newer) = (MemoryLayout<tc_attention_options>.size, newer)
                try check(tc_cache_attend(cache.pointer, 0, &query, 4, 1, &options, nil, &paged, 128))
            }
        }
        try withPaged(more[0], order: order, firstRow: 12) { first in
            try withPaged(more[1], order: order, firstRow: 5) { second in
                try check(tc_cache_append(cache.pointer, [first, second], 2, 100, nil))
            }
        }
        try expected.append(more, tokens: nil)
        try await expectSameFile(cache, expected)

        try check(tc_cache_attend(cache.pointer, 0, &query, 4, 1, nil, nil, &plain, 128))
        for (one, other) in zip(paged, plain) { #expect(abs(one - other) < 0.05) }
        withExtendedLifetime(queries) {}
    }

    @Test("rows are restored to blocks", arguments: Order.allCases, [0, 9])
    func restore(order: Order, firstRow: Int) async throws {
        let source = try TestCache.small()
        let expected = try await CompressedCache(compressing: source, recipe: Recipe("kivi(bits=4)"))
        let cache = try Owned.cache(source, recipe: "kivi(bits=4)")
        let rows = try expected.layers[1].decompress(rows: 17..<290, as: .float16)
        let pool = Pool(order: order, tokens: 273, firstRow: firstRow)
        let before = pool.keys.bytes
        func tensor(_ memory: EngineMemory) -> tc_mutable_tensor {
            let strides = pool.tensorStrides
            return tc_mutable_tensor(
                data: memory.start,
                type: TC_FLOAT16,
                head_stride: strides.head,
                token_stride: strides.token,
                channel_stride: strides.channel
            )
        }
        var (keys, values) = (tensor(pool.keys), tensor(pool.values))
        try pool.withTable { try check(tc_cache_restore(cache.pointer, 1, 17, 273, &keys, &values, $0)) }
        #expect(pool.read(pool.keys, tokens: 273) == rows.keys.bytes.array)
        #expect(pool.read(pool.values, tokens: 273) == rows.values.bytes.array)
        // All else is as it was.
        let changed = zip(before, pool.keys.bytes).count { $0 != $1 }
        #expect(changed <= 273 * 2 * 32 * 2)
    }

    @Test("keys without values are paged, too")
    func pagedKeysAlone() async throws {
        let keys = try TestCache.small().layers[0].keys
        let nothing = KVTensor(bytes: SharedBytes([]), elementType: .float16, heads: 2, tokens: 300, headDimension: 0)
        let source = try KVCache(layers: [KVCacheLayer(keys: keys, values: nothing)])
        let compressor = try Owned.compressor(source, recipe: "kivi(bits=2)")
        try withPaged(source.layers[0], order: .dense, firstRow: 3) {
            try check(tc_compressor_add_layer(compressor.pointer, &$0, nil))
        }
        let expected = try await CompressedCache(compressing: source, recipe: Recipe("kivi(bits=2)"))
        try await expectSameFile(try Owned.finish(compressor, of: source), expected)
    }

    @Test("tables that don't fit are refused")
    func badTables() throws {
        let source = try TestCache.small()
        let compressor = try Owned.compressor(source, recipe: "kivi(bits=2)")
        func expectRefused(says text: String, _ change: (inout tc_block_table) -> Void) {
            withPaged(source.layers[0], order: .dense, firstRow: 0) { layer in
                var table = layer.blocks.pointee
                change(&table)
                withUnsafePointer(to: &table) { table in
                    layer.blocks = table
                    expect(
                        tc_compressor_add_layer(compressor.pointer, &layer, nil),
                        is: TC_INVALID_ARGUMENT,
                        says: text
                    )
                }
            }
        }
        expectRefused(says: "layer.blocks.size is 0") { $0.size = 0 }
        expectRefused(says: "layer.blocks.blocks is NULL") { $0.blocks = nil }
        expectRefused(says: "layer.blocks.block_tokens is 0") { $0.block_tokens = 0 }
        expectRefused(says: "layer.blocks.block_tokens is 18446744073709551615") { $0.block_tokens = -1 }
        expectRefused(says: "too few for 300 from row 0 on") { $0.block_count = 18 }
        expectRefused(says: "too few for 300 from row 5 on") { $0.first_row = 5 }
        expectRefused(says: "from row 18446744073709551615 on") { $0.first_row = -1 }
        expectRefused(says: "layer.blocks.pool_blocks is 0") { $0.pool_blocks = 0 }
        expectRefused(says: "layer.blocks.blocks[1] is 10, and the pool has 10") { $0.pool_blocks = 10 }
        expectRefused(says: "layer.blocks.key_block_stride is 5: numbers would overlap") { $0.key_block_stride = 5 }
        expectRefused(says: "layer.blocks.value_block_stride") { $0.value_block_stride = .max / 4 }

        let cache = try Owned.cache(source, recipe: "kivi(bits=2)")
        let pool = Pool(order: .dense, tokens: 300, firstRow: 0)
        pool.blocks[4] = pool.blocks[2]
        var keys = tc_mutable_tensor(
            data: pool.keys.start,
            type: TC_FLOAT16,
            head_stride: 0,
            token_stride: 0,
            channel_stride: 0
        )
        pool.withTable {
            expect(
                tc_cache_restore(cache.pointer, 0, 0, 300, &keys, nil, $0),
                is: TC_INVALID_ARGUMENT,
                says: "blocks.blocks[4] is 17, which is there twice"
            )
        }
        pool.blocks[4] = -1
        pool.withTable {
            expect(
                tc_cache_restore(cache.pointer, 0, 0, 300, &keys, nil, $0),
                is: TC_INVALID_ARGUMENT,
                says: "blocks.blocks[4] is -1"
            )
        }
    }
}
