internal import ByteStorage
internal import KVCacheModel

/// Room for what a layer computes for some tokens, used by all layers one after another.
struct Activations: Sendable {
    /// Tokens that there is room for.
    let rows: Int
    let normalized: FloatMatrix
    let queries: FloatMatrix
    let keys: FloatMatrix
    let values: FloatMatrix
    let attended: FloatMatrix
    let projected: FloatMatrix
    let gates: FloatMatrix
    let ups: FloatMatrix

    init(rows: Int, configuration: ModelConfiguration) throws(MemoryError) {
        func matrix(_ columns: Int) throws(MemoryError) -> FloatMatrix { try FloatMatrix(rows: rows, columns: columns) }
        self.rows = rows
        normalized = try matrix(configuration.hiddenSize)
        queries = try matrix(configuration.queryWidth)
        keys = try matrix(configuration.keyValueWidth)
        values = try matrix(configuration.keyValueWidth)
        attended = try matrix(configuration.queryWidth)
        projected = try matrix(configuration.hiddenSize)
        gates = try matrix(configuration.intermediateSize)
        ups = try matrix(configuration.intermediateSize)
    }

    /// Queries of some rows as attention takes them: `[queryHeads, rows, headDimension]`.
    func queries(rows range: Range<Int>, geometry: LayerGeometry) -> KVTensor {
        KVTensor(
            rows: queries,
            range: range,
            heads: geometry.queryHeads,
            headDimension: geometry.keyDimension
        )
    }
}

extension KVTensor {
    /// A view of rows that hold one token each, head after head.
    init(rows matrix: FloatMatrix, range: Range<Int>, heads: Int, headDimension: Int) {
        let headBytes = headDimension * ElementType.float32.byteCount
        let rowBytes = heads * headBytes
        let bytes = unsafe matrix.shared
        self.init(
            bytes: bytes[range.lowerBound * rowBytes..<range.upperBound * rowBytes],
            elementType: .float32,
            heads: heads,
            tokens: range.count,
            headDimension: headDimension,
            headStride: headBytes,
            tokenStride: rowBytes
        )
    }
}
