package import ByteStorage
internal import CThinkKernels

#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#else
    internal import Darwin
#endif

/// Attention of some queries over keys and values in float32 that come tile by tile.
///
/// For measuring: it keeps the scores of the last tile. The scale is `1 / sqrt(keyDimension)`.
@safe
package final class TileAttention {
    /// Tokens of a tile at the most.
    package static let maximumTokens = MatrixTile.tokens

    private let memory: AlignedBuffer
    private var rows: QueryRows
    private let tile: MatrixTile
    /// `log2(e) * q · k / sqrt(keyDimension)` of the last tile: `[rows, tokens]`.
    package private(set) var scores: [Float] = []

    /// - Parameter queries: `[rows, keyDimension]`.
    /// - Throws: `MemoryError` if there is no memory for it.
    package init(queries: [Float], keyDimension: Int, valueDimension: Int) throws(MemoryError) {
        let count = queries.count / keyDimension
        let workspaceBytes = tck_attention_workspace_bytes(keyDimension, valueDimension)
        memory = try AlignedBuffer(
            byteCount: QueryRows.byteCount(
                capacity: count,
                keyDimension: keyDimension,
                valueDimension: valueDimension
            )
                + MatrixTile.byteCount(
                    rows: count,
                    keyDimension: keyDimension,
                    valueDimension: valueDimension,
                    keptTiles: 1
                )
                + QueryRows.Arena.byteCount(UInt8.self, count: workspaceBytes)
        )
        // The memory lives as long as this object, and nobody else has it.
        let base = unsafe memory.withUnsafeMutableBytes { $0.baseAddress }
        guard let base = unsafe base else { preconditionFailure("a buffer has memory") }
        var arena = unsafe QueryRows.Arena(base)
        rows = QueryRows(
            capacity: count,
            keyDimension: keyDimension,
            valueDimension: valueDimension,
            arena: &arena
        )
        tile = MatrixTile(
            rows: count,
            keyDimension: keyDimension,
            valueDimension: valueDimension,
            keptTiles: 1,
            arena: &arena
        )
        let workspace = unsafe arena.take(UInt8.self, count: workspaceBytes)
        unsafe rows.begin(count: count, softCap: 0, isPrecise: true, workspace: UnsafeMutableRawPointer(workspace))
        let scale = Float(M_LOG2E) / Float(keyDimension).squareRoot()
        for row in 0..<count {
            for channel in 0..<keyDimension {
                unsafe rows.queries[row * rows.queryStride + channel] = queries[row * keyDimension + channel] * scale
            }
        }
    }

    /// Adds a tile.
    ///
    /// - Parameters:
    ///   - keys: `[count, keyDimension]` at least.
    ///   - values: `[count, valueDimension]` at least.
    ///   - visible: which of the tile's tokens each row of queries sees.
    package func add(keys: [Float], values: [Float], count: Int, visible: [Range<Int>]) {
        precondition(count <= Self.maximumTokens, "a tile has \(Self.maximumTokens) tokens at most")
        precondition(
            visible.count == rows.count && visible.allSatisfy { $0.lowerBound >= 0 && $0.upperBound <= count },
            "every row sees some of the tile's tokens"
        )
        let (keyCount, valueCount) = (count * rows.keyDimension, count * rows.valueDimension)
        precondition(keys.count >= keyCount && values.count >= valueCount, "the tile must be whole")
        unsafe keys.withUnsafeBufferPointer { unsafe copy($0, to: tile.keys, count: keyCount) }
        unsafe values.withUnsafeBufferPointer { unsafe copy($0, to: tile.values, count: valueCount) }
        for (row, seen) in visible.enumerated() {
            unsafe rows.visible[row] = tck_token_range(first: seen.lowerBound, end: seen.upperBound)
        }
        tile.score(rows, count: count)
        scores.removeAll(keepingCapacity: true)
        for row in 0..<rows.count {
            unsafe scores.append(
                contentsOf: UnsafeBufferPointer(start: tile.scores + row * MatrixTile.tokens, count: count)
            )
        }
        tile.join(rows, count: count)
    }

    private func copy(_ source: UnsafeBufferPointer<Float>, to: UnsafeMutablePointer<Float>, count: Int) {
        guard let base = source.baseAddress else { return }
        unsafe to.update(from: base, count: count)
    }

    /// The attention output of all rows: `[rows, valueDimension]`.
    package var result: [Float] {
        var output = [Float](repeating: 0, count: rows.count * rows.valueDimension)
        unsafe output.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return }
            for row in 0..<rows.count { unsafe rows.finish(row: row, into: base + row * rows.valueDimension) }
        }
        return output
    }
}
