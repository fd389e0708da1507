internal import ByteStorage
internal import CThinkKernels
internal import Foundation
internal import KVCacheCodecs
internal import KVCacheModel

/// One call of attention: how it is cut into pieces, and what a thread does with them.
///
/// A *job* is one KV head and some of its queries; a job's work is a sequence of *tiles* of up to 256 tokens: pages of
/// blocks, then rows in full precision. Jobs lie one after another, and every thread takes an equal, contiguous share
/// of all tiles, so that a job may be shared by two threads or more; their results are merged at the end.
@safe
struct AttentionStep {
    /// Queries of a job at the most: matrix products of so many rows keep their operands in the second-level cache.
    private static let maximumJobRows = 512

    private let layer: CompressedLayer
    private let window: KVCacheLayer?
    private let newer: KVCacheLayer?
    private let queries: KVTensor
    private let output: UnsafeMutablePointer<Float>

    private let keyDimension: Int
    private let valueDimension: Int
    private let group: Int
    private let scale: Float
    private let softCap: Float
    private let slidingWindow: Int
    private let precision: Attention.Precision
    /// Tokens, the new ones included.
    private let tokenCount: Int
    /// Chunks that no query sees any token of come before.
    private let firstChunk: Int
    private let windowTiles: Int
    private let tileCount: Int
    /// Query positions of a job.
    private let jobPositions: Int
    private let jobsPerHead: Int

    init(
        attention: Attention,
        queries: KVTensor,
        layer: CompressedLayer,
        newer: KVCacheLayer?,
        output: UnsafeMutablePointer<Float>
    ) {
        self.layer = layer
        window = layer.residualWindow
        self.newer = newer
        self.queries = queries
        unsafe self.output = unsafe output
        keyDimension = queries.headDimension
        valueDimension = layer.shape.headDimension
        group = queries.heads / layer.shape.kvHeads
        let log2e = Float(M_LOG2E)
        scale = (attention.scale ?? 1 / Float(keyDimension).squareRoot()) * log2e
        softCap = (attention.logitSoftCap ?? 0) * log2e
        slidingWindow = attention.slidingWindow ?? .max
        precision = attention.precision
        tokenCount = layer.tokenCount + (newer?.keys.tokens ?? 0)
        let firstToken = max(tokenCount - queries.tokens + 1 - min(slidingWindow, tokenCount), 0)
        firstChunk = min(firstToken / BlockShape.pageTokens, layer.chunkCount)
        func tiles(_ tokens: Int) -> Int { (tokens + MatrixTile.tokens - 1) / MatrixTile.tokens }
        windowTiles = tiles(layer.tokenCount - layer.blockTokenCount)
        tileCount = layer.chunkCount - firstChunk + windowTiles + tiles(newer?.keys.tokens ?? 0)
        // Jobs of about equal size, since threads share tiles evenly.
        let largest = max(min(Self.maximumJobRows / group, queries.tokens), 1)
        let jobs = (queries.tokens + largest - 1) / largest
        jobPositions = (queries.tokens + jobs - 1) / jobs
        jobsPerHead = (queries.tokens + jobPositions - 1) / jobPositions
    }

    /// Computes the step on all workers.
    ///
    /// - Throws: `CodecError` if there is no memory to work in; nothing has been computed then.
    func run(on workers: AttentionWorkers) throws(CodecError) {
        do {
            try compute(on: workers)
        } catch {
            throw CodecError(error, layer: layer.index)
        }
    }

    private func compute(on workers: AttentionWorkers) throws(MemoryError) {
        let jobRows = jobPositions * group
        let least = unsafe Kernels.best.product_rows
        let usesProducts = jobRows >= min(least.fast, least.precise, least.full)
        if usesProducts { try SingleThreadedProducts.reserve(callers: workers.threadCount) }
        let products = usesProducts ? SingleThreadedProducts() : nil
        defer { extendLifetime(products) }
        let bytes =
            QueryRows.Arena.byteCount(UInt8.self, count: tck_attention_workspace_bytes(keyDimension, valueDimension))
            + 3
            * QueryRows.byteCount(capacity: jobRows, keyDimension: keyDimension, valueDimension: valueDimension)
            + (usesProducts
                ? MatrixTile.byteCount(rows: jobRows, keyDimension: keyDimension, valueDimension: valueDimension) : 0)
        let total = layer.shape.kvHeads * jobsPerHead * tileCount
        let threads = workers.threadCount
        unsafe try withUnsafeTemporaryAllocation(
            of: Part?.self,
            capacity: 2 * threads
        ) { (parts) throws(MemoryError) in
            unsafe parts.initialize(repeating: nil)
            try layer.withPages { (pages) throws(MemoryError) in
                unsafe try workers.run(scratchBytes: bytes) { thread, memory in
                    unsafe work(
                        on: total * thread / threads..<total * (thread + 1) / threads,
                        pages: pages,
                        memory: ThreadMemory(
                            memory,
                            rows: jobRows,
                            keyDimension: keyDimension,
                            valueDimension: valueDimension,
                            hasTile: usesProducts
                        ),
                        parts: UnsafeMutableBufferPointer(rebasing: parts[2 * thread..<2 * thread + 2])
                    )
                } finally: {
                    unsafe mergeParts(parts)
                }
            }
        }
    }

    // MARK: - A thread's share

    /// A job of which a thread has done a part only; its rows wait in the thread's memory.
    @safe
    private struct Part {
        let job: Int
        let rows: QueryRows
    }

    /// How a thread divides its memory.
    @safe
    private struct ThreadMemory {
        let workspace: UnsafeMutableRawPointer
        /// For jobs that are done as a whole, and for those that end or begin in another thread's share.
        let whole: QueryRows
        let first: QueryRows
        let last: QueryRows
        let tile: MatrixTile?

        init(_ memory: UnsafeMutableRawPointer, rows: Int, keyDimension: Int, valueDimension: Int, hasTile: Bool) {
            var arena = unsafe QueryRows.Arena(memory)
            let workspaceBytes = tck_attention_workspace_bytes(keyDimension, valueDimension)
            unsafe workspace = UnsafeMutableRawPointer(arena.take(UInt8.self, count: workspaceBytes))
            func queryRows() -> QueryRows {
                QueryRows(capacity: rows, keyDimension: keyDimension, valueDimension: valueDimension, arena: &arena)
            }
            whole = queryRows()
            first = queryRows()
            last = queryRows()
            tile =
                hasTile
                ? MatrixTile(rows: rows, keyDimension: keyDimension, valueDimension: valueDimension, arena: &arena)
                : nil
        }
    }

    private func work(
        on share: Range<Int>,
        pages: PageTable,
        memory: ThreadMemory,
        parts: UnsafeMutableBufferPointer<Part?>
    ) {
        var next = share.lowerBound
        while next < share.upperBound {
            let job = next / tileCount
            let tiles = next - job * tileCount..<min(share.upperBound - job * tileCount, tileCount)
            let isWhole = tiles.count == tileCount
            let isFirst = next == share.lowerBound
            var rows = isWhole ? memory.whole : isFirst ? memory.first : memory.last
            unsafe begin(&rows, job: job, workspace: memory.workspace)
            for tile in tiles {
                attend(rows, job: job, tile: tile, pages: pages, products: memory.tile)
            }
            if isWhole {
                finish(rows, job: job)
            } else {
                unsafe parts[isFirst ? 0 : 1] = Part(job: job, rows: rows)
            }
            next += tiles.count
        }
    }

    /// Merges and finishes jobs that threads shared; their parts come one after another.
    private func mergeParts(_ parts: UnsafeMutableBufferPointer<Part?>) {
        var current: Part?
        for index in parts.indices {
            guard let part = unsafe parts[index] else { continue }
            if let begun = current, begun.job == part.job {
                begun.rows.merge(part.rows)
            } else {
                if let done = current { finish(done.rows, job: done.job) }
                current = part
            }
        }
        if let done = current { finish(done.rows, job: done.job) }
    }

    // MARK: - Jobs

    private func head(ofJob job: Int) -> Int { job / jobsPerHead }

    /// Positions of a job's queries among all queries.
    private func positions(ofJob job: Int) -> Range<Int> {
        let start = job % jobsPerHead * jobPositions
        return start..<min(start + jobPositions, queries.tokens)
    }

    /// Takes a job's queries: row `position * group + member`.
    private func begin(_ rows: inout QueryRows, job: Int, workspace: UnsafeMutableRawPointer) {
        let positions = positions(ofJob: job)
        let head = head(ofJob: job)
        let format = layer.blockFormat(head: head)
        let plan = layer.plan(head: head)
        unsafe rows.begin(
            count: positions.count * group,
            softCap: softCap,
            isPrecise: isPrecise(plan),
            workspace: workspace
        )
        for member in 0..<group {
            unsafe queries.withRows(head: head * group + member, from: positions.lowerBound) { source in
                guard let start = unsafe source.bytes else { return }
                for position in 0..<positions.count {
                    let row = unsafe rows.queries + (position * group + member) * rows.queryStride
                    unsafe Kernels.best.widen(source.type, start + position * source.token_stride, keyDimension, row)
                    for channel in 0..<keyDimension { unsafe row[channel] *= scale }
                }
            }
        }
        rows.gatherKept(runs: plan.keyRuns, format: format, prunedMeans: layer.prunedMeans(head: head))
    }

    private func isPrecise(_ plan: HeadPlan) -> Bool {
        switch precision {
        case .fast: false
        case .precise: true
        case .automatic: plan.valueWidth > 2 || plan.keyRuns.contains { $0.width > 2 }
        }
    }

    private func finish(_ rows: QueryRows, job: Int) {
        let positions = positions(ofJob: job)
        let head = head(ofJob: job)
        for position in 0..<positions.count {
            for member in 0..<group {
                let place = (positions.lowerBound + position) * queries.heads + head * group + member
                unsafe rows.finish(row: position * group + member, into: output + place * valueDimension)
            }
        }
    }

    // MARK: - Tiles

    private func attend(_ rows: QueryRows, job: Int, tile: Int, pages: PageTable, products: MatrixTile?) {
        let head = head(ofJob: job)
        let chunk = firstChunk + tile
        guard chunk >= layer.chunkCount else {
            let start = chunk * BlockShape.pageTokens
            let blocks = layer.blockCount(chunk: chunk)
            let count = blocks * layer.shape.blockLength
            guard show(rows, job: job, tokens: start..<start + count) else { return }
            if let products = products, prefersProducts(rows, head: head) {
                for unsafe(part, memory) in unsafe [(CachePart.keys, products.keys), (.values, products.values)] {
                    unsafe layer.decompress(
                        part,
                        head: head,
                        tokens: start..<start + count,
                        as: .float32,
                        to: UnsafeMutableRawPointer(memory)
                    )
                }
                products.score(rows, count: count)
                products.join(rows, count: count)
                return
            }
            let next = unsafe nextPage(after: chunk, job: job, pages: pages)
            unsafe attendBlocks(
                rows,
                head: head,
                page: pages.page(chunk: chunk, head: head),
                blocks: blocks,
                next: next
            )
            return
        }
        let rowTile = chunk - layer.chunkCount
        let isNewer = rowTile >= windowTiles
        guard let source = isNewer ? newer : window else { return }
        let from = (isNewer ? rowTile - windowTiles : rowTile) * MatrixTile.tokens
        let count = min(MatrixTile.tokens, source.keys.tokens - from)
        let start = (isNewer ? layer.tokenCount : layer.blockTokenCount) + from
        guard show(rows, job: job, tokens: start..<start + count) else { return }
        if let products = products, unsafe rows.count >= Kernels.best.product_rows.full {
            unsafe source.keys.widenRows(head: head, from: from, count: count, into: products.keys)
            unsafe source.values.widenRows(head: head, from: from, count: count, into: products.values)
            products.score(rows, count: count)
            products.join(rows, count: count)
            return
        }
        unsafe source.keys.withRows(head: head, from: from) { keys in
            unsafe source.values.withRows(head: head, from: from) { values in
                for four in 0..<rows.groupCount where rows.seesAnything(group: four) {
                    unsafe Kernels.best.attend_rows(
                        keys,
                        values,
                        count,
                        keyDimension,
                        valueDimension,
                        rows.groups + four
                    )
                }
            }
        }
    }

    /// Says which of a tile's tokens each row sees.
    ///
    /// - Returns: whether any row sees any.
    private func show(_ rows: QueryRows, job: Int, tokens: Range<Int>) -> Bool {
        var isSeen = false
        for (index, query) in positions(ofJob: job).enumerated() {
            let end = tokenCount - queries.tokens + query + 1
            let first = slidingWindow < end ? end - slidingWindow : 0
            let range = tck_token_range(
                first: min(max(first - tokens.lowerBound, 0), tokens.count),
                end: min(max(end - tokens.lowerBound, 0), tokens.count)
            )
            isSeen = isSeen || range.first < range.end
            for member in 0..<group { unsafe rows.visible[index * group + member] = range }
        }
        return isSeen
    }

    private func attendBlocks(
        _ rows: QueryRows,
        head: Int,
        page: UnsafeRawPointer,
        blocks: Int,
        next: UnsafeRawBufferPointer
    ) {
        var format = layer.blockFormat(head: head)
        // The next page is to be fetched once.
        var ahead = unsafe next
        for four in 0..<rows.groupCount where rows.seesAnything(group: four) {
            unsafe Kernels.best.attend_blocks(
                &format,
                page,
                blocks,
                rows.groups + four,
                ahead.baseAddress,
                ahead.count
            )
            unsafe ahead = UnsafeRawBufferPointer(start: nil, count: 0)
        }
    }

    /// What a thread that goes on from a page reads next, so far as it is blocks.
    private func nextPage(after chunk: Int, job: Int, pages: PageTable) -> UnsafeRawBufferPointer {
        let isLast = chunk + 1 == layer.chunkCount
        let (nextChunk, nextHead) = isLast ? (firstChunk, head(ofJob: job + 1)) : (chunk + 1, head(ofJob: job))
        guard nextHead < layer.shape.kvHeads else { return unsafe UnsafeRawBufferPointer(start: nil, count: 0) }
        return unsafe UnsafeRawBufferPointer(
            start: pages.page(chunk: nextChunk, head: nextHead),
            count: layer.blockCount(chunk: nextChunk) * layer.blockByteCount(head: nextHead)
        )
    }

    /// Whether a page is attended faster by restoring it and multiplying matrices.
    private func prefersProducts(_ rows: QueryRows, head: Int) -> Bool {
        let least = unsafe Kernels.best.product_rows
        let plan = layer.plan(head: head)
        let fullWidth = layer.shape.elementType.bitWidth
        if plan.valueWidth == fullWidth || plan.keyRuns.contains(where: { $0.width == fullWidth }) {
            return rows.count >= least.full
        }
        return rows.count >= (isPrecise(plan) ? least.precise : least.fast)
    }
}
