internal import ByteStorage
internal import CThinkKernels
internal import CachePacking
internal import ComputeRuntime
internal import KVCacheModel

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// One call of attention: how it is cut into pieces, and what a thread does with them.
///
/// A *job* is one KV head and some of its queries; a job's work is a sequence of *tiles* of up to 256 rows: pages of
/// blocks, then rows in full precision (sinks, the residual window, newer tokens). Jobs lie one after another, and every
/// thread takes an equal, contiguous share of all tiles, so that a job may be shared by two threads or more; their results
/// are merged at the end.
@safe
struct AttentionStep {
    /// Queries of a job at the most: matrix products of so many rows keep their operands in the second-level cache.
    private static let maximumJobRows = 512
    /// The same where weights are added up: jobs are not divided then, and all threads are to have some.
    private static let maximumAccumulatingRows = 192
    /// Scores that a thread keeps then, of all a job's tiles: about 32 MiB, unless one position's are more.
    private static let maximumKeptScores = 1 << 23

    private let layer: CompressedLayer
    private let newer: KVCacheLayer?
    /// Rows in full precision that the layer has, in tiles.
    private let rowTiles: [RowTile]
    private let queries: KVTensor
    private let output: UnsafeMutablePointer<Float>
    /// Adds up the weights that the newer rows get, where that is asked for.
    private let totals: AttentionTotals?

    private let keyDimension: Int
    private let valueDimension: Int
    private let group: Int
    private let scale: Float
    private let softCap: Float
    private let slidingWindow: Int
    /// One for each query head, in the units of scores; nil for none.
    private let sinkLogits: [Float]?
    private let precision: Attention.Precision
    /// Tokens, the new ones included.
    private let tokenCount: Int
    /// The chunks of whose blocks a query may see something.
    private let chunks: Range<Int>
    private let tileCount: Int
    /// Query positions of a job.
    private let jobPositions: Int
    private let jobsPerHead: Int

    init(
        attention: Attention,
        queries: KVTensor,
        layer: CompressedLayer,
        newer: KVCacheLayer?,
        output: UnsafeMutablePointer<Float>,
        accumulates: Bool = false
    ) throws(CodecError) {
        self.layer = layer
        self.newer = newer
        self.queries = queries
        unsafe self.output = unsafe output
        keyDimension = queries.headDimension
        valueDimension = layer.geometry.valueDimension
        group = queries.heads / layer.geometry.kvHeads
        let log2e = Float(M_LOG2E)
        scale = (attention.scale ?? 1 / Float(keyDimension).squareRoot()) * log2e
        softCap = (attention.logitSoftCap ?? 0) * log2e
        slidingWindow = attention.slidingWindow ?? .max
        sinkLogits = attention.sinkLogits?.map { $0 * log2e }
        precision = attention.precision
        tokenCount = layer.tokenCount + (newer?.keys.tokens ?? 0)
        let firstToken = max(tokenCount - queries.tokens + 1 - min(slidingWindow, tokenCount), 0)
        // Where places are other tokens' in every head, no chunk is known not to be seen.
        let firstPlace = if case .listed = layer.held { 0 } else { firstToken }
        let all = layer.extent.chunks
        chunks = min(max(all.lowerBound, firstPlace / BlockShape.pageTokens), all.upperBound)..<all.upperBound
        rowTiles =
            RowTile.tiles(of: layer.sinkRows, firstPlace: 0)
            + RowTile.tiles(of: layer.residualWindow, firstPlace: layer.extent.windowStart)
            + RowTile.tiles(of: newer, firstPlace: layer.extent.end)
        tileCount = chunks.count + rowTiles.count
        // Jobs of about equal size, since threads share tiles evenly.
        let mostRows =
            accumulates
            ? min(Self.maximumKeptScores / max(tokenCount, 1), Self.maximumAccumulatingRows) : Self.maximumJobRows
        let largest = max(min(mostRows / group, queries.tokens), 1)
        let jobs = (queries.tokens + largest - 1) / largest
        jobPositions = (queries.tokens + jobs - 1) / jobs
        jobsPerHead = (queries.tokens + jobPositions - 1) / jobPositions
        do {
            totals =
                accumulates
                ? try AttentionTotals(
                    kvHeads: layer.geometry.kvHeads,
                    jobsPerHead: jobsPerHead,
                    rowCount: newer?.keys.tokens ?? 0
                ) : nil
        } catch {
            throw CodecError(error, layer: layer.index)
        }
    }

    /// The sum of the weights that each newer row got, for each KV head: over queries and the query heads of the group.
    /// None unless they were asked for.
    var sums: [[Double]] { totals?.sums ?? [] }

    /// Computes the step on all workers.
    ///
    /// - Throws: `CodecError` if there is no memory to work in; nothing has been computed then.
    func run(on workers: WorkerThreads) throws(CodecError) {
        do {
            try compute(on: workers)
        } catch {
            throw CodecError(error, layer: layer.index)
        }
    }

    private func compute(on workers: WorkerThreads) throws(MemoryError) {
        // Nothing is seen where there is nothing.
        guard tileCount > 0 else {
            unsafe output.update(repeating: 0, count: queries.tokens * queries.heads * valueDimension)
            return
        }
        let jobRows = jobPositions * group
        let least = unsafe Kernels.best.product_rows
        let usesProducts = totals != nil || jobRows >= min(least.fast, least.precise, least.full)
        if usesProducts { try SingleThreadedProducts.reserve(callers: workers.threadCount) }
        let products = usesProducts ? SingleThreadedProducts() : nil
        defer { extendLifetime(products) }
        let bytes =
            QueryRows.Arena.byteCount(UInt8.self, count: tck_attention_workspace_bytes(keyDimension, valueDimension))
            + 3
            * QueryRows.byteCount(capacity: jobRows, keyDimension: keyDimension, valueDimension: valueDimension)
            + (usesProducts
                ? MatrixTile.byteCount(
                    rows: jobRows,
                    keyDimension: keyDimension,
                    valueDimension: valueDimension,
                    keptTiles: keptTileCount
                ) : 0)
        let threads = workers.threadCount
        unsafe try withUnsafeTemporaryAllocation(
            of: Part?.self,
            capacity: 2 * threads
        ) { (parts) throws(MemoryError) in
            unsafe parts.initialize(repeating: nil)
            try layer.withPages { (pages) throws(MemoryError) in
                unsafe try workers.run(scratchBytes: bytes) { thread, memory in
                    unsafe work(
                        on: shareStart(ofThread: thread, of: threads)..<shareStart(ofThread: thread + 1, of: threads),
                        pages: pages,
                        memory: ThreadMemory(
                            memory,
                            rows: jobRows,
                            keyDimension: keyDimension,
                            valueDimension: valueDimension,
                            hasTile: usesProducts,
                            keptTiles: keptTileCount
                        ),
                        parts: UnsafeMutableBufferPointer(rebasing: parts[2 * thread..<2 * thread + 2])
                    )
                } finally: {
                    unsafe mergeParts(parts)
                }
            }
        }
    }

    /// Tiles of a job whose scores are kept until all of it has been seen.
    private var keptTileCount: Int { totals == nil ? 1 : tileCount }

    /// The first of all jobs' tiles that a thread takes. Jobs whose scores are kept are not divided.
    private func shareStart(ofThread thread: Int, of threads: Int) -> Int {
        let jobs = layer.geometry.kvHeads * jobsPerHead
        return totals == nil ? jobs * tileCount * thread / threads : jobs * thread / threads * tileCount
    }

    /// Up to 256 rows in full precision that lie one after another.
    private struct RowTile {
        let source: KVCacheLayer
        /// The first row, and its place.
        let row: Int
        let place: Int
        let count: Int

        static func tiles(of source: KVCacheLayer?, firstPlace: Int) -> [RowTile] {
            guard let source else { return [] }
            return stride(from: 0, to: source.keys.tokens, by: MatrixTile.tokens).map { row in
                RowTile(
                    source: source,
                    row: row,
                    place: firstPlace + row,
                    count: min(MatrixTile.tokens, source.keys.tokens - row)
                )
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

        init(
            _ memory: UnsafeMutableRawPointer,
            rows: Int,
            keyDimension: Int,
            valueDimension: Int,
            hasTile: Bool,
            keptTiles: Int
        ) {
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
                ? MatrixTile(
                    rows: rows,
                    keyDimension: keyDimension,
                    valueDimension: valueDimension,
                    keptTiles: keptTiles,
                    arena: &arena
                ) : nil
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
            attend(rows, job: job, tiles: tiles, pages: pages, products: memory.tile)
            if isWhole {
                finish(rows, job: job, products: memory.tile)
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
        let plan = layer.plan.heads[head]
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
        if let components = layer.components(head: head) {
            rows.projectKept(by: components.keys, format: format)
        } else {
            rows.gatherKept(runs: plan.keyRuns, format: format, means: layer.keyMeans(head: head))
        }
    }

    private func isPrecise(_ plan: HeadPlan) -> Bool {
        switch precision {
        case .fast: false
        case .precise: true
        case .automatic: !plan.isCoarse(keyDimension: keyDimension)
        }
    }

    /// Writes what a job's queries have been given, once they have seen all there is.
    ///
    /// - Parameter products: what has kept their scores, where weights are added up.
    private func finish(_ rows: QueryRows, job: Int, products: MatrixTile? = nil) {
        let positions = positions(ofJob: job)
        let head = head(ofJob: job)
        if let sinkLogits {
            for row in 0..<rows.count { rows.addSink(row: row, logit: sinkLogits[head * group + row % group]) }
        }
        if let totals, let products {
            for (number, tile) in rowTiles.enumerated() where markVisible(rows, job: job, head: head, tile: tile) {
                totals.add(products.keeping(number), of: rows, job: job, firstRow: tile.row, count: tile.count)
            }
        }
        for position in 0..<positions.count {
            for member in 0..<group {
                let row = (positions.lowerBound + position) * queries.heads + head * group + member
                unsafe rows.finish(row: position * group + member, into: output + row * valueDimension)
            }
        }
    }

    // MARK: - Tiles

    /// Attends to some of a job's tiles: pages of blocks, then rows in full precision.
    private func attend(_ rows: QueryRows, job: Int, tiles: Range<Int>, pages: PageTable, products: MatrixTile?) {
        let head = head(ofJob: job)
        for tile in tiles.clamped(to: 0..<chunks.count) {
            attend(rows, job: job, head: head, chunk: chunks.lowerBound + tile, pages: pages, products: products)
        }
        restoreValues(rows, head: head, products: products)
        for tile in tiles.clamped(to: chunks.count..<tileCount) {
            attend(
                rows,
                job: job,
                head: head,
                tile: rowTiles[tile - chunks.count],
                products: totals == nil ? products : products?.keeping(tile)
            )
        }
    }

    /// Turns what blocks alone have given so far into values: from their components, or where these are centered the kernels have added up rotated
    /// numbers less their means, and where channels were pruned those that are kept, unless pages were restored.
    private func restoreValues(_ rows: QueryRows, head: Int, products: MatrixTile?) {
        if let values = layer.components(head: head)?.values {
            if products == nil || !prefersProducts(rows, head: head) { rows.restoreValues(by: values) }
            return
        }
        let values = layer.plan.heads[head].values
        let keptChannels = layer.keptValueChannels(head: head)
        guard values.isCentered || keptChannels != nil, products == nil || !prefersProducts(rows, head: head) else {
            return
        }
        let means = layer.valueMeans(head: head)
        rows.restoreValues(
            isRotated: values.rotation == .hadamard,
            keptChannels: keptChannels,
            keptMeans: means.kept,
            prunedMeans: means.pruned
        )
    }

    private func attend(
        _ rows: QueryRows,
        job: Int,
        head: Int,
        chunk: Int,
        pages: PageTable,
        products: MatrixTile?
    ) {
        let blocks = layer.extent.blocks(ofChunk: chunk)
        let start = blocks.lowerBound * layer.shape.blockLength
        let readable = layer.readablePlaces(ofChunk: chunk)
        guard markVisible(rows, job: job, head: head, places: readable, start: start) else { return }
        if let products = products, prefersProducts(rows, head: head) {
            let count = blocks.count * layer.shape.blockLength
            let stored = readable.lowerBound - layer.extent.first..<readable.upperBound - layer.extent.first
            let skipped = readable.lowerBound - start
            for (part, dimension) in [(CachePart.keys, keyDimension), (.values, valueDimension)] {
                let memory = unsafe part == .keys ? products.keys : products.values
                // What is not to be read is not seen; it must be finite.
                unsafe memory.update(repeating: 0, count: skipped * dimension)
                unsafe layer.decompress(
                    part,
                    head: head,
                    rows: stored,
                    as: .float32,
                    to: UnsafeMutableRawPointer(memory + skipped * dimension)
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
            page: pages.page(slab: chunk - layer.extent.chunks.lowerBound, head: head),
            blocks: blocks.count,
            next: next
        )
    }

    private func attend(_ rows: QueryRows, job: Int, head: Int, tile: RowTile, products: MatrixTile?) {
        guard markVisible(rows, job: job, head: head, tile: tile) else { return }
        if let products = products, unsafe totals != nil || rows.count >= Kernels.best.product_rows.full {
            unsafe tile.source.keys.widenRows(head: head, from: tile.row, count: tile.count, into: products.keys)
            unsafe tile.source.values.widenRows(head: head, from: tile.row, count: tile.count, into: products.values)
            products.score(rows, count: tile.count)
            products.join(rows, count: tile.count)
            return
        }
        unsafe tile.source.keys.withRows(head: head, from: tile.row) { keys in
            unsafe tile.source.values.withRows(head: head, from: tile.row) { values in
                for four in 0..<rows.groupCount where rows.seesAnything(group: four) {
                    unsafe Kernels.best.attend_rows(
                        keys,
                        values,
                        tile.count,
                        keyDimension,
                        valueDimension,
                        rows.groups + four
                    )
                }
            }
        }
    }

    private func markVisible(_ rows: QueryRows, job: Int, head: Int, tile: RowTile) -> Bool {
        markVisible(rows, job: job, head: head, places: tile.place..<tile.place + tile.count, start: tile.place)
    }

    /// Says which of a tile's rows each query sees.
    ///
    /// - Parameters:
    ///   - places: the tile's rows that there are to be seen.
    ///   - start: the place of the tile's first row.
    /// - Returns: whether any query sees any.
    private func markVisible(_ rows: QueryRows, job: Int, head: Int, places: Range<Int>, start: Int) -> Bool {
        var isSeen = false
        for (index, query) in positions(ofJob: job).enumerated() {
            let end = tokenCount - queries.tokens + query + 1
            let first = slidingWindow < end ? end - slidingWindow : 0
            let seen = layer.places(ofTokens: first..<end, head: head).clamped(to: places)
            let range = tck_token_range(first: seen.lowerBound - start, end: seen.upperBound - start)
            isSeen = isSeen || !seen.isEmpty
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
        let isLast = chunk + 1 == chunks.upperBound
        let (nextChunk, nextHead) = isLast ? (chunks.lowerBound, head(ofJob: job + 1)) : (chunk + 1, head(ofJob: job))
        guard nextHead < layer.geometry.kvHeads else { return unsafe UnsafeRawBufferPointer(start: nil, count: 0) }
        return unsafe UnsafeRawBufferPointer(
            start: pages.page(slab: nextChunk - layer.extent.chunks.lowerBound, head: nextHead),
            count: layer.extent.blocks(ofChunk: nextChunk).count * layer.blockFormat(head: nextHead).byte_count
        )
    }

    /// Whether a page is attended faster by restoring it and multiplying matrices.
    private func prefersProducts(_ rows: QueryRows, head: Int) -> Bool {
        let least = unsafe Kernels.best.product_rows
        let plan = layer.plan.heads[head]
        if plan.components == nil
            && (plan.values.isFullPrecision || plan.keyRuns.contains(where: \.coding.isFullPrecision))
        {
            return rows.count >= least.full
        }
        return rows.count >= (isPrecise(plan) ? least.precise : least.fast)
    }
}
