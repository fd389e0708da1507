internal import ByteStorage
internal import Foundation

/// How far the rows of a step are turned, a table for each rotary embedding of the model.
struct RotaryTables: Sendable {
    /// Tokens that are computed together, at the end of a text or of its first tokens.
    struct Text {
        let positions: Range<Int>
        /// Tokens of the text, up to the last that is computed by then.
        let tokenCount: Int
    }

    private let tables: [FloatMatrix]
    /// Which table is of each layer.
    private let indices: [Int]

    /// - Parameter texts: whose tokens the rows are, text by text.
    /// - Throws: `MemoryError` if there is no memory for them.
    init(_ configuration: ModelConfiguration, texts: [Text]) throws(MemoryError) {
        var embeddings: [RotaryEmbedding] = []
        indices = configuration.slidingWindows.indices.map { layer in
            let embedding = configuration.rotary(ofLayer: layer)
            if let known = embeddings.firstIndex(of: embedding) { return known }
            embeddings.append(embedding)
            return embeddings.count - 1
        }
        tables = try embeddings.map { embedding throws(MemoryError) in try Self.table(embedding, texts: texts) }
    }

    /// Cosines and then sines of every pair's angle, a row per token.
    subscript(layer layer: Int) -> FloatMatrix { tables[indices[layer]] }

    private static func table(_ embedding: RotaryEmbedding, texts: [Text]) throws(MemoryError) -> FloatMatrix {
        let half = embedding.headDimension / 2
        let rows = texts.reduce(0) { $0 + $1.positions.count }
        let table = try FloatMatrix(rows: rows, columns: 2 * half)
        let factor = embedding.attentionFactor
        var row = 0
        for text in texts {
            let frequencies = embedding.frequencies(tokenCount: text.tokenCount)
            for position in text.positions {
                let turn = unsafe table[row]
                for (index, frequency) in frequencies.enumerated() {
                    let angle = Double(Float(position) * frequency)
                    unsafe turn[index] = Float(cos(angle)) * factor
                    unsafe turn[half + index] = Float(sin(angle)) * factor
                }
                row += 1
            }
        }
        return table
    }
}
