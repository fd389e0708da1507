internal import COpenBLAS
internal import CThinkKernels
internal import ComputeRuntime

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
