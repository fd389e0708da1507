internal import ByteStorage

/// The weights that rows in full precision get from queries, added up while attention is computed.
///
/// Every job adds up its own, so that the sums don't depend on which thread was first: some 4 bytes for each job and row.
@safe
final class AttentionTotals: Sendable {
    private let kvHeads: Int
    private let jobsPerHead: Int
    private let rowCount: Int
    /// `[kvHeads][jobs][rows]`, float32.
    private let weights: AlignedBuffer

    init(kvHeads: Int, jobsPerHead: Int, rowCount: Int) throws(MemoryError) {
        self.kvHeads = kvHeads
        self.jobsPerHead = jobsPerHead
        self.rowCount = rowCount
        weights = try AlignedBuffer(byteCount: kvHeads * jobsPerHead * rowCount * MemoryLayout<Float>.stride)
    }

    /// Adds what a job's queries give to the rows of a tile, once they have seen all there is.
    func add(_ tile: MatrixTile, of queries: QueryRows, job: Int, firstRow: Int, count: Int) {
        precondition(job < kvHeads * jobsPerHead && firstRow + count <= rowCount, "the tile must be one of the rows")
        unsafe weights.withUnsafeMutableBytes { bytes in
            guard let base = unsafe bytes.bindMemory(to: Float.self).baseAddress else { return }
            unsafe tile.addWeights(of: queries, count: count, to: base + job * rowCount + firstRow)
        }
    }

    /// The sum of each KV head's weights, row by row.
    var sums: [[Double]] {
        unsafe weights.withUnsafeMutableBytes { bytes in
            let weights = unsafe bytes.bindMemory(to: Float.self)
            return (0..<kvHeads).map { head in
                var sums = [Double](repeating: 0, count: rowCount)
                for job in head * jobsPerHead..<(head + 1) * jobsPerHead {
                    for row in sums.indices { unsafe sums[row] += Double(weights[job * rowCount + row]) }
                }
                return sums
            }
        }
    }
}
