internal import COpenBLAS
internal import CThinkKernels
internal import ComputeRuntime

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// Attention over a tile of keys and values in float32 by two matrix products.
@safe
struct MatrixTile {
    /// Tokens of a tile at the most.
    static let tokens = Int(TCK_PAGE_TOKENS)

    /// `[tokens][key dimension]`, to be filled before each tile.
    let keys: UnsafeMutablePointer<Float>
    /// `[tokens][value dimension]`, alike.
    let values: UnsafeMutablePointer<Float>
    /// Scores, then powers relative to the rows' maxima so far: `[rows][tokens]`.
    private(set) var scores: UnsafeMutablePointer<Float>
    /// The rows' maxima when the tile had been joined.
    private(set) var maxima: UnsafeMutablePointer<Float>
    private let paddedRows: Int

    /// Bytes of a tile, of which the scores of `keptTiles` others are kept.
    static func byteCount(rows: Int, keyDimension: Int, valueDimension: Int, keptTiles: Int) -> Int {
        QueryRows.Arena.byteCount(Float.self, count: tokens * keyDimension)
            + QueryRows.Arena.byteCount(Float.self, count: tokens * valueDimension)
            + QueryRows.Arena.byteCount(Float.self, count: QueryRows.paddedRows(rows) * tokens * keptTiles)
            + QueryRows.Arena.byteCount(Float.self, count: QueryRows.paddedRows(rows) * keptTiles)
    }

    init(rows: Int, keyDimension: Int, valueDimension: Int, keptTiles: Int, arena: inout QueryRows.Arena) {
        paddedRows = QueryRows.paddedRows(rows)
        unsafe keys = arena.take(Float.self, count: Self.tokens * keyDimension)
        unsafe values = arena.take(Float.self, count: Self.tokens * valueDimension)
        unsafe scores = arena.take(Float.self, count: paddedRows * Self.tokens * keptTiles)
        unsafe maxima = arena.take(Float.self, count: paddedRows * keptTiles)
    }

    /// The tile with the scores and maxima of one of several that are kept.
    func keeping(_ number: Int) -> MatrixTile {
        var tile = self
        unsafe tile.scores += number * paddedRows * Self.tokens
        unsafe tile.maxima += number * paddedRows
        return tile
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
        unsafe maxima.update(from: rows.maxima, count: rows.count)
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

    /// Adds to `sums`, one for each of the first `count` tokens, the weights that the rows give them, once all tiles have
    /// been joined.
    func addWeights(of rows: QueryRows, count: Int, to sums: UnsafeMutablePointer<Float>) {
        unsafe withUnsafeTemporaryAllocation(of: Float.self, capacity: rows.count) { factors in
            for row in 0..<rows.count {
                // A row that has seen nothing gives nothing.
                let sum = unsafe rows.sums[row]
                unsafe factors[row] = sum == 0 ? 0 : exp2(maxima[row] - rows.maxima[row]) / sum
            }
            unsafe cblas_sgemv(
                CblasRowMajor,
                CblasTrans,
                blasint(rows.count),
                blasint(count),
                1,
                scores,
                blasint(Self.tokens),
                factors.baseAddress,
                1,
                1,
                sums,
                1
            )
        }
    }
}
