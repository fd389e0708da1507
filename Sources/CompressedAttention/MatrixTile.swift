internal import COpenBLAS
internal import CThinkKernels
internal import ComputeRuntime

/// Attention over a tile of keys and values in float32 by two matrix products.
@safe
struct MatrixTile {
    /// Tokens of a tile at the most.
    static let tokens = Int(TCK_TILE_TOKENS)

    /// `[tokens][dimension]`, to be filled before each tile.
    let keys: UnsafeMutablePointer<Float>
    let values: UnsafeMutablePointer<Float>
    /// Scores, then powers: `[rows][tokens]`.
    let scores: UnsafeMutablePointer<Float>

    static func byteCount(rows: Int, dimension: Int) -> Int {
        2 * QueryRows.Arena.byteCount(Float.self, count: tokens * dimension)
            + QueryRows.Arena.byteCount(Float.self, count: QueryRows.paddedRows(rows) * tokens)
    }

    init(rows: Int, dimension: Int, arena: inout QueryRows.Arena) {
        unsafe keys = arena.take(Float.self, count: Self.tokens * dimension)
        unsafe values = arena.take(Float.self, count: Self.tokens * dimension)
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
            blasint(rows.dimension),
            1,
            rows.queries,
            blasint(rows.stride),
            keys,
            blasint(rows.dimension),
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
                rows.dimension,
                rows.groups + group
            )
        }
        unsafe cblas_sgemm(
            CblasRowMajor,
            CblasNoTrans,
            CblasNoTrans,
            blasint(rows.count),
            blasint(rows.dimension),
            blasint(count),
            1,
            scores,
            blasint(Self.tokens),
            values,
            blasint(rows.dimension),
            1,
            rows.outputs,
            blasint(rows.stride)
        )
    }
}
