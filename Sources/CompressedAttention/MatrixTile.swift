package import ByteStorage
internal import COpenBLAS
internal import CThinkKernels
internal import Synchronization

/// Attention over a tile of keys and values in float32 by two matrix products.
@safe
struct MatrixTile {
    /// Tokens of a tile at the most.
    static let tokens = Int(TCK_PAGE_TOKENS)

    /// `[tokens][key dimension]`, to be filled before each tile.
    let keys: UnsafeMutablePointer<Float>
    /// `[tokens][value dimension]`, alike.
    let values: UnsafeMutablePointer<Float>
    /// Scores, then powers: `[rows][tokens]`.
    let scores: UnsafeMutablePointer<Float>

    static func byteCount(rows: Int, keyDimension: Int, valueDimension: Int) -> Int {
        QueryRows.Arena.byteCount(Float.self, count: tokens * keyDimension)
            + QueryRows.Arena.byteCount(Float.self, count: tokens * valueDimension)
            + QueryRows.Arena.byteCount(Float.self, count: QueryRows.paddedRows(rows) * tokens)
    }

    init(rows: Int, keyDimension: Int, valueDimension: Int, arena: inout QueryRows.Arena) {
        unsafe keys = arena.take(Float.self, count: Self.tokens * keyDimension)
        unsafe values = arena.take(Float.self, count: Self.tokens * valueDimension)
        unsafe scores = arena.take(Float.self, count: QueryRows.paddedRows(rows) * Self.tokens)
    }

    /// Computes the scores of the first `count` tokens.
    func score(_ rows: QueryRows, count: Int) {
        unsafe cblas_sgemm(
            CblasRowMajor,
            CblasNoTrans,
            CblasTrans,
            blasint(rows.count),
            blasint(count),
            blasint(rows.keyDimension),
            1,
            rows.queries,
            blasint(rows.queryStride),
            keys,
            blasint(rows.keyDimension),
            0,
            scores,
            blasint(Self.tokens)
        )
    }

    /// Adds the tile to what the rows have seen, by its scores; `visible` says who sees what.
    func join(_ rows: QueryRows, count: Int) {
        for group in 0..<rows.groupCount {
            unsafe Kernels.best.join_scores(
                scores + group * QueryRows.rowsPerGroup * Self.tokens,
                count,
                rows.valueDimension,
                rows.groups + group
            )
        }
        unsafe cblas_sgemm(
            CblasRowMajor,
            CblasNoTrans,
            CblasNoTrans,
            blasint(rows.count),
            blasint(rows.valueDimension),
            blasint(count),
            1,
            scores,
            blasint(Self.tokens),
            values,
            blasint(rows.valueDimension),
            1,
            rows.outputs,
            blasint(rows.outputStride)
        )
    }
}

/// Lets matrix products run on the calling thread only, while work is spread over threads by other means.
///
/// OpenBLAS has one setting for the process: the first of those who need it saves it and the last restores it.
package struct SingleThreadedProducts: ~Copyable {
    private struct Setting {
        var users = 0
        var formerCount: Int32 = 1
        /// Products that OpenBLAS has buffers for.
        var buffers: Int32 = 0
    }

    private static let setting = Mutex(Setting())

    /// Lets all matrix products of the process run on the calling thread only, and ends threads that OpenBLAS has
    /// started when it was loaded (on Linux the command keeps it from that): they spin for a while and keep others from working.
    ///
    /// For the beginning of a program; nobody else may be using OpenBLAS.
    package static func adoptForProcess() {
        setting.withLock { setting in
            setting.users += 1
            openblas_set_num_threads(1)
        }
        tcb_end_threads()
    }

    /// Sees to it that so many threads can compute products at a time: OpenBLAS takes large buffers for them when it
    /// first needs them, and waits for ever where there is no memory.
    ///
    /// - Throws: `MemoryError` if there is no memory for the buffers.
    package static func reserve(callers: Int) throws(MemoryError) {
        try setting.withLock { (setting) throws(MemoryError) in
            let wanted = Int32(min(callers, tcb_most_buffers))
            guard setting.buffers < wanted else { return }
            setting.buffers = tcb_take_buffers(setting.buffers, wanted)
            if setting.buffers < wanted {
                throw MemoryError(byteCount: Int(wanted - setting.buffers) * tcb_buffer_bytes)
            }
        }
    }

    package init() {
        Self.setting.withLock { setting in
            if setting.users == 0 {
                setting.formerCount = openblas_get_num_threads()
                if setting.formerCount != 1 { openblas_set_num_threads(1) }
            }
            setting.users += 1
        }
    }

    deinit {
        Self.setting.withLock { setting in
            setting.users -= 1
            if setting.users == 0, setting.formerCount != 1 { openblas_set_num_threads(setting.formerCount) }
        }
    }
}
